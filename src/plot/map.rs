//! Maps in Web Mercator with coastlines, degrees at the edges and a colour bar.

use plotters::prelude::{Color, PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{IntoFont, RGBColor, TextStyle};

use super::canvas::{Area, Canvas, FONT, PlotError, failed};
use super::color_scale::ColorScale;

/// Least side of the map on the canvas, pixels: twice that of the picture. Halving makes text and lines
/// smooth.
const SIDE: u32 = 2048;
/// Margins around the map, pixels: left, top, right, bottom.
const MARGINS: [u32; 4] = [144, 184, 80, 264];
/// Height of the colour bar, pixels.
const BAR: u32 = 44;
/// Width of coastlines and other lines, pixels.
const LINE: u32 = 2;
const LAND: [u8; 3] = [214, 214, 214];
const COAST: [u8; 3] = [70, 70, 70];
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(110, 110, 110);
/// Latitudes with a tick mark, degrees north.
const LATITUDES: [i32; 9] = [80, 70, 60, 40, 0, -40, -60, -70, -80];
/// Longitudes with a tick mark, degrees east.
const LONGITUDES: [i32; 7] = [-180, -120, -60, 0, 60, 120, 180];

/// A map to draw: its values and texts.
pub struct MapPicture<'a> {
    /// Number of cells along each side.
    pub size: usize,
    /// Values in row-major order, rows from north to south, columns from west to east; NaN is land.
    pub values: &'a [f32],
    /// Title, such as the name of the variable.
    pub title: String,
    /// Subtitle, such as the case and the time.
    pub subtitle: String,
    /// Units of the values, which stand at the colour bar.
    pub units: &'a str,
    /// Whether the colour scale is symmetric around 0.
    pub diverging: bool,
}

/// Draws a map as PNG.
///
/// # Errors
/// Every value is NaN, or the drawing library fails.
pub fn map(picture: &MapPicture<'_>) -> Result<Vec<u8>, PlotError> {
    let scale = ColorScale::over(picture.values, picture.diverging).ok_or(PlotError::Empty)?;
    let zoom = (SIDE / picture.size as u32).max(1);
    let side = zoom * picture.size as u32;
    let [left, top, right, bottom] = MARGINS;
    let mut canvas = Canvas::new(left + side + right, top + side + bottom);
    draw_cells(&mut canvas, picture, &scale, zoom);
    let bar = top + side + 112;
    for x in 0..side {
        let value = scale.low + (scale.high - scale.low) * (f64::from(x) + 0.5) / f64::from(side);
        (0..BAR).for_each(|y| canvas.set(left + x, bar + y, scale.color(value)));
    }
    canvas.draw(|area| {
        draw_text(area, &picture.title, (left, 40), style(56, INK, HPos::Left, VPos::Top))?;
        draw_text(area, &picture.subtitle, (left, 112), style(40, FAINT, HPos::Left, VPos::Top))?;
        draw_frame(area, (left, top), (side, side))?;
        draw_latitudes(area, side)?;
        draw_longitudes(area, side)?;
        draw_bar_labels(area, picture, &scale, (side, bar))
    })?;
    canvas.halved().png()
}

/// The style of text of this size, anchored at these sides of its position.
fn style(size: u32, color: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&color).pos(Pos::new(h, v))
}

fn draw_text(
    area: &Area<'_>,
    text: &str,
    (x, y): (u32, u32),
    style: TextStyle<'static>,
) -> Result<(), PlotError> {
    area.draw(&Text::new(text.to_owned(), (x as i32, y as i32), style)).map_err(failed)
}

fn draw_line(area: &Area<'_>, from: (u32, u32), to: (u32, u32)) -> Result<(), PlotError> {
    let path = [from, to].map(|(x, y)| (x as i32, y as i32));
    area.draw(&PathElement::new(path.to_vec(), INK.stroke_width(LINE))).map_err(failed)
}

fn draw_frame(
    area: &Area<'_>,
    (x, y): (u32, u32),
    (width, height): (u32, u32),
) -> Result<(), PlotError> {
    let corners = [(x as i32, y as i32), ((x + width) as i32, (y + height) as i32)];
    area.draw(&Rectangle::new(corners, INK.stroke_width(LINE))).map_err(failed)
}

/// Draws the tick marks and labels at the left edge of a map whose sides have `side` pixels.
fn draw_latitudes(area: &Area<'_>, side: u32) -> Result<(), PlotError> {
    let [left, top, ..] = MARGINS;
    for lat in LATITUDES {
        let y = top + (f64::from(side) * row_fraction(f64::from(lat))).round() as u32;
        draw_line(area, (left - 12, y), (left, y))?;
        let hemisphere = match lat {
            0 => "°",
            1.. => "°N",
            _ => "°S",
        };
        let label = format!("{}{hemisphere}", lat.abs());
        draw_text(area, &label, (left - 20, y), style(32, INK, HPos::Right, VPos::Center))?;
    }
    Ok(())
}

/// Draws the tick marks and labels at the lower edge of a map whose sides have `side` pixels.
fn draw_longitudes(area: &Area<'_>, side: u32) -> Result<(), PlotError> {
    let [left, top, ..] = MARGINS;
    for lon in LONGITUDES {
        let x = left + (f64::from(side) * f64::from(lon + 180) / 360.0).round() as u32;
        draw_line(area, (x, top + side), (x, top + side + 12))?;
        let hemisphere = match lon {
            0 | 180 | -180 => "°",
            1.. => "°E",
            _ => "°W",
        };
        let label = format!("{}{hemisphere}", lon.abs());
        draw_text(area, &label, (x, top + side + 24), style(32, INK, HPos::Center, VPos::Top))?;
    }
    Ok(())
}

/// Draws the frame, ticks and units of the colour bar, whose width is `side` and whose upper edge is `bar`.
fn draw_bar_labels(
    area: &Area<'_>,
    picture: &MapPicture<'_>,
    scale: &ColorScale,
    (side, bar): (u32, u32),
) -> Result<(), PlotError> {
    let [left, ..] = MARGINS;
    draw_frame(area, (left, bar), (side, BAR))?;
    for (value, label) in scale.ticks(8) {
        let fraction = (value - scale.low) / (scale.high - scale.low);
        let x = left + (f64::from(side) * fraction).round() as u32;
        draw_line(area, (x, bar + BAR), (x, bar + BAR + 12))?;
        draw_text(area, &label, (x, bar + BAR + 20), style(32, INK, HPos::Center, VPos::Top))?;
    }
    let units = picture.units.replace("^2", "²").replace("^3", "³");
    let is_beyond = picture.values.iter().any(|&v| scale.is_beyond(v.into()));
    let note = if is_beyond { " (values beyond an end have its colour)" } else { "" };
    let position = (left + side / 2, bar + BAR + 68);
    let style = style(36, INK, HPos::Center, VPos::Top);
    draw_text(area, &format!("{units}{note}"), position, style)
}

/// Draws the cells, with land in grey and a coastline between sea and land.
fn draw_cells(canvas: &mut Canvas, picture: &MapPicture<'_>, scale: &ColorScale, zoom: u32) {
    let [left, top, ..] = MARGINS;
    let n = picture.size;
    let is_sea = |row: usize, column: usize| {
        picture.values.get(row * n + column).is_some_and(|value| value.is_finite())
    };
    for row in 0..n {
        for column in 0..n {
            let sea = is_sea(row, column);
            let value = picture.values.get(row * n + column).copied().unwrap_or(f32::NAN);
            let color = if sea { scale.color(value.into()) } else { LAND };
            let (x, y) = (left + column as u32 * zoom, top + row as u32 * zoom);
            for dy in 0..zoom {
                for dx in 0..zoom {
                    let west = dx < LINE && column > 0 && is_sea(row, column - 1) != sea;
                    let north = dy < LINE && row > 0 && is_sea(row - 1, column) != sea;
                    canvas.set(x + dx, y + dy, if west || north { COAST } else { color });
                }
            }
        }
    }
}

/// Position of a latitude between the northern edge of the map (0) and the southern edge (1).
fn row_fraction(lat: f64) -> f64 {
    let mercator = (std::f64::consts::FRAC_PI_4 + lat.to_radians() / 2.0).tan().ln();
    0.5 - mercator / (2.0 * std::f64::consts::PI)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_a_png_of_the_expected_size() {
        let values: Vec<f32> =
            (0..64).map(|n| if n % 9 == 0 { f32::NAN } else { n as f32 }).collect();
        let picture = MapPicture {
            size: 8,
            values: &values,
            title: "pH".to_owned(),
            subtitle: String::new(),
            units: "1",
            diverging: false,
        };
        let png = map(&picture).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (1136, 1248));
        let empty = MapPicture { values: &[f32::NAN; 64], ..picture };
        assert!(matches!(map(&empty), Err(PlotError::Empty)));
    }
}
