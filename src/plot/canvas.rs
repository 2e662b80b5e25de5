//! An RGB picture with a font that comes with the program: what is drawn does not depend on the
//! machine.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::{BitMapBackend, DrawingArea, IntoDrawingArea};
use plotters::style::{FontStyle, register_font};

/// Name of the registered font.
pub const FONT: &str = "sans-serif";

/// Keyword of the PNG text chunk that names the program that made a picture, and this program there.
const SOFTWARE: &str = "Software";
const PROGRAM: &str = "dor-atlas";

/// Whether a file is a picture that this program has drawn.
pub fn is_own_picture(file: &[u8]) -> bool {
    let decoder = png::Decoder::new(std::io::Cursor::new(file));
    let Ok(reader) = decoder.read_info() else { return false };
    let mut text = reader.info().uncompressed_latin1_text.iter();
    text.any(|chunk| chunk.keyword == SOFTWARE && chunk.text == PROGRAM)
}

/// A picture could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The drawing library failed.
    #[error("cannot draw: {0}")]
    Draw(String),
    /// The picture could not be compressed.
    #[error("cannot write the picture")]
    Png(#[from] png::EncodingError),
    /// More curves than can be told apart.
    #[error("{curves} curves are more than the {most} that can be told apart: choose fewer cases")]
    TooMany {
        /// How many there are.
        curves: usize,
        /// How many there may be.
        most: usize,
    },
    /// Nothing to see.
    #[error("there is no value to draw: all of it is fill")]
    Empty,
}

/// A picture of `width` x `height` points.
pub struct Canvas {
    pub width: u32,
    pub height: u32,
    rgb: Vec<u8>,
}

impl Canvas {
    /// A white one.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, rgb: vec![255; (width * height * 3) as usize] }
    }

    /// Colours one point.
    pub fn set(&mut self, x: u32, y: u32, color: [u8; 3]) {
        let at = ((y * self.width + x) * 3) as usize;
        if let Some(room) = self.rgb.get_mut(at..at + 3).filter(|_| x < self.width) {
            room.copy_from_slice(&color);
        }
    }

    /// Draws lines and text over it.
    pub fn draw(
        &mut self,
        drawing: impl FnOnce(&DrawingArea<BitMapBackend<'_>, Shift>) -> Result<(), PlotError>,
    ) -> Result<(), PlotError> {
        static FONTS: Once = Once::new();
        // The font is a constant of the program, and whole.
        FONTS.call_once(|| _ = register_font(FONT, FontStyle::Normal, notosans::REGULAR_TTF));
        let size = (self.width, self.height);
        let area = BitMapBackend::with_buffer(&mut self.rgb, size).into_drawing_area();
        drawing(&area)?;
        area.present().map_err(failed)
    }

    /// Half as wide and half as high, each point the mean of four: lines become smooth.
    pub fn halved(&self) -> Self {
        let mut half = Self::new(self.width / 2, self.height / 2);
        let at =
            |x: u32, y: u32, c: u32| u32::from(self.rgb[((y * self.width + x) * 3 + c) as usize]);
        for y in 0..half.height {
            for x in 0..half.width {
                let of = |c| {
                    let (x, y) = (2 * x, 2 * y);
                    ((at(x, y, c) + at(x + 1, y, c) + at(x, y + 1, c) + at(x + 1, y + 1, c)) / 4)
                        as u8
                };
                half.set(x, y, [of(0), of(1), of(2)]);
            }
        }
        half
    }

    /// The picture as PNG.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.add_text_chunk(SOFTWARE.to_owned(), PROGRAM.to_owned())?;
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(out)
    }
}

/// The drawing library's errors, which are generic over its backends.
pub fn failed(error: impl std::fmt::Display) -> PlotError {
    PlotError::Draw(error.to_string())
}
