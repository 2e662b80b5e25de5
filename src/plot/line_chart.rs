//! Line charts of curves over the years since the intervention.

use plotters::prelude::{ChartBuilder, Color, LineSeries, PathElement, Text};
use plotters::style::{IntoFont, RGBColor};

use super::canvas::{Canvas, FONT, PlotError, failed};

/// Width and height of the canvas, pixels: four times those of the picture. Scaling down makes lines
/// smooth.
const SIZE: (u32, u32) = (4800, 2560);
/// Width of the legend at the right, pixels.
const LEGEND_WIDTH: u32 = 1080;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// Months in a year.
const YEAR: f64 = 12.0;
/// Colours that colour-blind readers can distinguish (Okabe and Ito 2008).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// A curve of one value for each month since the intervention.
pub struct PlottedCurve<'a> {
    /// Text of the legend.
    pub label: &'a str,
    /// One value for each month, NaN where there is none.
    pub values: &'a [f32],
}

/// Draws curves as PNG; `axis` is the label of the vertical axis.
///
/// # Errors
/// There are more than seven curves, every value is fill, or the drawing library fails.
pub fn curves(title: &str, axis: &str, curves: &[PlottedCurve<'_>]) -> Result<Vec<u8>, PlotError> {
    if curves.len() > COLORS.len() {
        return Err(PlotError::TooMany { curves: curves.len(), most: COLORS.len() });
    }
    let finite = curves.iter().flat_map(|curve| curve.values).filter(|v| v.is_finite());
    let (low, high) = finite.fold((0.0_f64, f64::NEG_INFINITY), |(low, high), &v| {
        (low.min(v.into()), high.max(v.into()))
    });
    if high == f64::NEG_INFINITY {
        return Err(PlotError::Empty);
    }
    let margin = (high - low).max(1e-9) * 0.04;
    let decimals = if high - low > 5.0 { 0 } else { 2 };
    let months = curves.iter().map(|curve| curve.values.len()).max().unwrap_or(0);
    let years = months as f64 / YEAR;
    let mut canvas = Canvas::new(SIZE.0, SIZE.1);
    canvas.draw(|area| {
        let (left, right) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        let mut chart = ChartBuilder::on(&left)
            .caption(title, (FONT, 112).into_font().color(&INK))
            .margin(96)
            .x_label_area_size(224)
            .y_label_area_size(336)
            .build_cartesian_2d(0.0..years, low - margin..high + margin)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(RGBColor(255, 255, 255))
            .bold_line_style(GRID.stroke_width(4))
            .axis_style(INK.stroke_width(4))
            .label_style((FONT, 72).into_font().color(&INK))
            .axis_desc_style((FONT, 80).into_font().color(&INK))
            .x_labels(16)
            .y_labels(8)
            .x_label_formatter(&|year| format!("{year:.0}"))
            .y_label_formatter(&|value| format!("{value:.decimals$}"))
            .x_desc("years since the intervention")
            .y_desc(axis)
            .draw()
            .map_err(failed)?;
        for (n, curve) in curves.iter().enumerate() {
            let style = COLORS[n % COLORS.len()].stroke_width(12);
            let points: Vec<(f64, f64)> = (1..)
                .zip(curve.values)
                .map(|(month, &value)| (f64::from(month) / YEAR, f64::from(value)))
                .collect();
            // One line for each run of finite values, so that the chart shows gaps.
            for run in points.split(|(_, value)| !value.is_finite()) {
                let line = LineSeries::new(run.iter().copied(), style);
                chart.draw_series(line).map_err(failed)?;
            }
            let y = 320 + 110 * n as i32;
            let sample = PathElement::new(vec![(0, y + 20), (120, y + 20)], style);
            right.draw(&sample).map_err(failed)?;
            let label = (FONT, 72).into_font().color(&INK);
            right.draw(&Text::new(curve.label.to_owned(), (160, y), label)).map_err(failed)?;
        }
        Ok(())
    })?;
    canvas.halved().halved().png()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_with_gaps_are_drawn_and_curves_without_values_are_an_error() {
        let mut values = [0.5_f32; 180];
        values[20..30].fill(f32::NAN);
        let curve = || PlottedCurve { label: "112-04", values: &values };
        assert!(curves("Efficiency", "", &[curve(), curve()]).unwrap().starts_with(b"\x89PNG"));
        let empty = PlottedCurve { label: "112-04", values: &[f32::NAN; 180] };
        assert!(matches!(curves("Efficiency", "", &[empty]), Err(PlotError::Empty)));
    }
}
