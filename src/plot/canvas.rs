//! An RGB image with an embedded font, so that pictures do not depend on the fonts of the machine.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::{BitMapBackend, DrawingArea, IntoDrawingArea};
use plotters::style::{FontStyle, register_font};

/// Name under which the embedded font is registered.
pub const FONT: &str = "sans-serif";

/// Keyword of the PNG text chunk that names the program which wrote the file (PNG specification).
const SOFTWARE: &str = "Software";
/// Value of that text chunk in the files of this program.
const PROGRAM: &str = "dor-atlas";

/// Whether the bytes of a file are a PNG that this program wrote.
pub fn is_own_picture(file: &[u8]) -> bool {
    let decoder = png::Decoder::new(std::io::Cursor::new(file));
    let Ok(reader) = decoder.read_info() else { return false };
    let mut text = reader.info().uncompressed_latin1_text.iter();
    text.any(|chunk| chunk.keyword == SOFTWARE && chunk.text == PROGRAM)
}

/// An error of drawing a picture.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The drawing library failed.
    #[error("cannot draw: {0}")]
    Draw(String),
    /// The picture could not be compressed.
    #[error("cannot write the picture")]
    Png(#[from] png::EncodingError),
    /// There are more curves than distinguishable colours.
    #[error("cannot draw {curves} curves: there are colours for {most}; choose fewer cases")]
    TooMany {
        /// Number of requested curves.
        curves: usize,
        /// Largest number of curves in a picture.
        most: usize,
    },
    /// Every value is fill.
    #[error("cannot draw: every value is fill")]
    Empty,
}

/// The drawing area of a [`Canvas`], in pixels.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// An RGB image of `width` x `height` pixels.
pub struct Canvas {
    pub width: u32,
    pub height: u32,
    rgb: Vec<u8>,
}

impl Canvas {
    /// Creates a white image.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, rgb: vec![255; (width * height * 3) as usize] }
    }

    /// Sets the colour of one pixel; a pixel outside the image is ignored.
    pub fn set(&mut self, x: u32, y: u32, color: [u8; 3]) {
        let at = ((y * self.width + x) * 3) as usize;
        if let Some(pixel) = self.rgb.get_mut(at..at + 3).filter(|_| x < self.width) {
            pixel.copy_from_slice(&color);
        }
    }

    /// Draws lines and text over the image.
    pub fn draw(
        &mut self,
        drawing: impl FnOnce(&Area<'_>) -> Result<(), PlotError>,
    ) -> Result<(), PlotError> {
        static FONTS: Once = Once::new();
        // Registration fails only for a damaged font, and this font is embedded.
        FONTS.call_once(|| _ = register_font(FONT, FontStyle::Normal, notosans::REGULAR_TTF));
        let size = (self.width, self.height);
        let area = BitMapBackend::with_buffer(&mut self.rgb, size).into_drawing_area();
        drawing(&area)?;
        area.present().map_err(failed)
    }

    /// The image at half the width and height. Each pixel is the mean of four, which makes lines smooth.
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

    /// Encodes the image as PNG.
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

/// Converts an error of the drawing library, whose type depends on the backend.
pub fn failed(error: impl std::fmt::Display) -> PlotError {
    PlotError::Draw(error.to_string())
}
