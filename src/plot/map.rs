//! A map in Web Mercator with its coast, degrees at the edges and a colour bar.

use plotters::prelude::{Color, PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{IntoFont, RGBColor, TextStyle};

use super::canvas::{Canvas, FONT, PlotError, failed};
use super::color_scale::ColorScale;

/// Points of the map's side, at least: twice those of the picture, which is halved to make its text
/// and lines smooth.
const SIDE: u32 = 2048;
/// Margins: left, top, right, bottom.
const MARGINS: [u32; 4] = [144, 184, 80, 264];
const BAR: u32 = 44;
/// Width of the coast and of other lines.
const LINE: u32 = 2;
const LAND: [u8; 3] = [214, 214, 214];
const COAST: [u8; 3] = [70, 70, 70];
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(110, 110, 110);
/// Latitudes that are marked, degrees north, and longitudes, degrees east.
const LATITUDES: [i32; 9] = [80, 70, 60, 40, 0, -40, -60, -70, -80];
const LONGITUDES: [i32; 7] = [-180, -120, -60, 0, 60, 120, 180];

/// What is drawn.
pub struct MapPicture<'a> {
    /// Cells a side.
    pub size: usize,
    /// Rows north to south, columns west to east; NaN is land.
    pub values: &'a [f32],
    /// What the values are.
    pub title: String,
    /// Of what case and time.
    pub subtitle: String,
    /// Units of the values, at the colour bar.
    pub units: &'a str,
    /// Whether 0 is in the middle of the scale.
    pub diverging: bool,
}

/// Draws a map; gives PNG.
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
        let style = |size: u32, color: RGBColor, h: HPos, v: VPos| -> TextStyle<'static> {
            (FONT, size).into_font().color(&color).pos(Pos::new(h, v))
        };
        let text = |text: String, x: u32, y: u32, style: TextStyle<'static>| {
            area.draw(&Text::new(text, (x as i32, y as i32), style)).map_err(failed)
        };
        let tick = |from: (u32, u32), to: (u32, u32)| {
            let path = [from, to].map(|(x, y)| (x as i32, y as i32));
            area.draw(&PathElement::new(path.to_vec(), INK.stroke_width(LINE))).map_err(failed)
        };
        let frame = |x: u32, y: u32, width: u32, height: u32| {
            let corners = [(x as i32, y as i32), ((x + width) as i32, (y + height) as i32)];
            area.draw(&Rectangle::new(corners, INK.stroke_width(LINE))).map_err(failed)
        };
        text(picture.title.clone(), left, 40, style(56, INK, HPos::Left, VPos::Top))?;
        text(picture.subtitle.clone(), left, 112, style(40, FAINT, HPos::Left, VPos::Top))?;
        frame(left, top, side, side)?;
        for lat in LATITUDES {
            let y = top + (f64::from(side) * row_share(f64::from(lat))).round() as u32;
            tick((left - 12, y), (left, y))?;
            let hemisphere = if lat > 0 {
                "°N"
            } else if lat < 0 {
                "°S"
            } else {
                "°"
            };
            let label = format!("{}{hemisphere}", lat.abs());
            text(label, left - 20, y, style(32, INK, HPos::Right, VPos::Center))?;
        }
        for lon in LONGITUDES {
            let x = left + (f64::from(side) * f64::from(lon + 180) / 360.0).round() as u32;
            tick((x, top + side), (x, top + side + 12))?;
            let hemisphere = match lon {
                0 | 180 | -180 => "°",
                1.. => "°E",
                _ => "°W",
            };
            let label = format!("{}{hemisphere}", lon.abs());
            text(label, x, top + side + 24, style(32, INK, HPos::Center, VPos::Top))?;
        }
        frame(left, bar, side, BAR)?;
        for (value, label) in scale.ticks(8) {
            let share = (value - scale.low) / (scale.high - scale.low);
            let x = left + (f64::from(side) * share).round() as u32;
            tick((x, bar + BAR), (x, bar + BAR + 12))?;
            text(label, x, bar + BAR + 20, style(32, INK, HPos::Center, VPos::Top))?;
        }
        let units = picture.units.replace("^2", "²").replace("^3", "³");
        let beyond = picture.values.iter().any(|&v| scale.is_beyond(v.into()));
        let note = if beyond { " (values beyond the ends have the end's colour)" } else { "" };
        let units = format!("{units}{note}");
        text(units, left + side / 2, bar + BAR + 68, style(36, INK, HPos::Center, VPos::Top))
    })?;
    canvas.halved().png()
}

/// The cells, land in grey, and a line where sea meets land.
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

/// Where a latitude is between the northern edge of the map (0) and the southern (1).
fn row_share(lat: f64) -> f64 {
    let mercator = (std::f64::consts::FRAC_PI_4 + lat.to_radians() / 2.0).tan().ln();
    0.5 - mercator / (2.0 * std::f64::consts::PI)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_a_picture_of_the_expected_size() {
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
