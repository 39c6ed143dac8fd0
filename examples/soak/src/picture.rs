//! Memory and descriptors over time.

use std::error::Error;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::report::Sample;

/// A process, seen at work, and between two sessions.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) seen: Vec<Sample>,
    pub(crate) idle: Vec<Sample>,
}

/// Okabe and Ito's colours, told apart by the colour-blind too.
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];
const INK: RGBColor = RGBColor(60, 60, 60);
/// Points in a line: more than there are pixels for nobody sees.
const POINTS: usize = 400;

fn text(size: f64) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

pub(crate) fn draw(path: &str, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    if let Some(directory) = std::path::Path::new(path).parent() {
        std::fs::create_dir_all(directory)?;
    }
    let root = SVGBackend::new(path, (880, 620)).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw_text("A soak: thick at rest, thin at work", &text(18.0), (16, 10))?;
    let (_, body) = root.split_vertically(40);
    let (above, below) = body.split_vertically(290);
    panel(&above, lines, "memory (RSS), MiB", |sample| sample.resident_kib as f64 / 1024.0)?;
    panel(&below, lines, "descriptors open", |sample| sample.descriptors as f64)?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(
    area: &Area<'_>,
    lines: &[Line],
    up: &str,
    of: impl Fn(&Sample) -> f64 + Copy,
) -> Result<(), Box<dyn Error>> {
    let all = || lines.iter().flat_map(|line| line.seen.iter().chain(&line.idle));
    let minutes = |sample: &Sample| sample.millis as f64 / 60_000.0;
    let last = all().map(minutes).fold(0.01, f64::max);
    let most = all().map(of).fold(1.0, f64::max) * 1.1;
    let (left, right) = area.split_horizontally(760);
    let mut chart: ChartContext<'_, _, Cartesian2d<RangedCoordf64, RangedCoordf64>> = ChartBuilder::on(&left)
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..last, 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("minutes")
        .y_desc(up)
        .label_style(text(12.0))
        .axis_desc_style(text(13.0))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()?;
    for (place, line) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        for (samples, width) in [(&line.seen, 1), (&line.idle, 3)] {
            let step = samples.len().div_ceil(POINTS).max(1);
            let points = samples.iter().step_by(step).map(|sample| (minutes(sample), of(sample)));
            chart.draw_series(LineSeries::new(points, colour.stroke_width(width)))?;
        }
        let top = 20 + place as i32 * 24;
        right.draw(&PathElement::new([(4, top + 7), (28, top + 7)], colour.stroke_width(3)))?;
        right.draw_text(line.name, &text(13.0), (36, top))?;
    }
    Ok(())
}
