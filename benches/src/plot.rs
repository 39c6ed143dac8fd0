//! Pictures of scenes.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::bench::Scene;
use crate::stats::Estimate;

type Outcome = Result<(), Box<dyn Error>>;
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Okabe and Ito's colours, told apart by the colour-blind too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];
const GREY: RGBColor = RGBColor(150, 150, 150);
const INK: RGBColor = RGBColor(60, 60, 60);

/// Draws what a report has the scenes for.
pub fn draw(scenes: &[Scene], directory: &Path) -> Outcome {
    let note = "median and its 95 % interval";
    let of = |kind: &str| scenes.iter().filter(move |scene| scene.kind == kind).collect::<Vec<_>>();
    let without = |kind: &str| {
        // Distinguished by size * 2 + descriptors: those without are even.
        of(kind).into_iter().filter(|scene| scene.at % 2 == 0).collect::<Vec<_>>()
    };
    let alone = without("alone");
    bars(
        &directory.join("alone.svg"),
        "One message at a time",
        &format!("ns of CPU time a message, both ends; {note}"),
        &alone,
    )?;
    let bursts = without("burst-64");
    bars(
        &directory.join("bursts.svg"),
        "Bursts of 64",
        &format!("ns of CPU time a message, both ends; {note}"),
        &bursts,
    )?;
    let trips = [of("round-trip-0"), of("round-trip-1")].into_iter().flatten();
    let trips: Vec<&Scene> = trips.filter(|scene| scene.at == 128).collect();
    bars(
        &directory.join("round-trips.svg"),
        "Round trips of 64 B between two threads",
        &format!("ns a round trip; {note}"),
        &trips,
    )?;

    let rate = |figure: Estimate| Estimate {
        low: 1e9 / figure.high,
        median: 1e9 / figure.median,
        high: 1e9 / figure.low,
        ..figure
    };
    Lines {
        title: "Messages of 64 B under way at most, both ends on one core",
        across: "queue depth, messages",
        up: "messages a second",
        steps: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
    }
    .draw(&directory.join("depth.svg"), &of("depth"), note, rate)?;
    Lines {
        title: "Threads that send 64 B on one channel",
        across: "sending threads",
        up: "messages a second",
        steps: &[1, 2, 4, 8, 16, 32, 64],
    }
    .draw(&directory.join("senders.svg"), &of("senders"), note, rate)?;
    Lines {
        title: "Descriptors in a message of 64 B",
        across: "descriptors in the message (places by count + 1, logarithmic)",
        up: "ns of CPU time a message, both ends",
        steps: &[0, 1, 2, 4, 8, 16, 32, 64, 128, 253],
    }
    .draw(&directory.join("descriptors.svg"), &of("descriptors"), note, |figure| figure)
}

fn text(size: f64, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour)
}

/// The crate's own wires stand out.
fn is_ours(way: &str) -> bool {
    matches!(way, "packet" | "libcamera" | "stream")
}

/// Bars side by side: a panel for each scene, the fastest way on top.
fn bars(path: &Path, title: &str, unit: &str, scenes: &[&Scene]) -> Outcome {
    const WIDTH: i32 = 880;
    const LABELS: i32 = 270;
    const VALUES: i32 = 190;
    const ROW: i32 = 20;
    if scenes.is_empty() {
        return Ok(());
    }
    let height: i32 = scenes.iter().map(|scene| scene.standings.len() as i32 * ROW + 44).sum::<i32>() + 66;
    let root = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw_text(title, &text(20.0, BLACK), (16, 12))?;
    root.draw_text(unit, &text(13.0, INK), (16, 40))?;
    let mut top = 66;
    for scene in scenes {
        root.draw_text(&scene.title, &text(15.0, BLACK), (16, top + 8))?;
        top += 32;
        let mut standings: Vec<_> = scene.standings.iter().collect();
        standings.sort_by(|one, other| one.figure.median.total_cmp(&other.figure.median));
        let most = standings.iter().map(|one| one.figure.high).fold(1.0, f64::max);
        let at = |value: f64| LABELS + ((WIDTH - LABELS - VALUES) as f64 * value / most).round() as i32;
        for standing in standings {
            let figure = standing.figure;
            let colour = if is_ours(&standing.way) { COLOURS[0] } else { GREY };
            let ink = if is_ours(&standing.way) { COLOURS[0] } else { INK };
            root.draw_text(&standing.way, &text(13.0, ink), (16, top + 3))?;
            let bar = [(LABELS, top + 3), (at(figure.median), top + ROW - 3)];
            root.draw(&Rectangle::new(bar, colour.filled()))?;
            whisker(&root, (at(figure.low), at(figure.high)), top + ROW / 2)?;
            let words = format!("{:.0} ({:.0} to {:.0})", figure.median, figure.low, figure.high);
            root.draw_text(&words, &text(12.0, INK), (at(figure.high) + 8, top + 4))?;
            top += ROW;
        }
        top += 12;
    }
    root.present()?;
    Ok(())
}

/// An interval, lying.
fn whisker(root: &Canvas<'_>, (low, high): (i32, i32), middle: i32) -> Outcome {
    for line in [
        [(low, middle), (high, middle)],
        [(low, middle - 4), (low, middle + 4)],
        [(high, middle - 4), (high, middle + 4)],
    ] {
        root.draw(&PathElement::new(line, BLACK))?;
    }
    Ok(())
}

/// A line for each way over a row of scenes, both axes logarithmic.
struct Lines<'a> {
    title: &'a str,
    across: &'a str,
    up: &'a str,
    /// What the scenes are told apart by, evenly spaced.
    steps: &'a [usize],
}

impl Lines<'_> {
    fn draw(
        &self,
        path: &Path,
        scenes: &[&Scene],
        note: &str,
        value: impl Fn(Estimate) -> Estimate,
    ) -> Outcome {
        const WIDTH: u32 = 880;
        const HEIGHT: u32 = 460;
        const LEGEND: u32 = 230;
        let Some(first) = scenes.first() else { return Ok(()) };
        let series: Vec<(&str, Vec<(usize, Estimate)>)> = first
            .standings
            .iter()
            .map(|standing| {
                let figures = self.steps.iter().enumerate().filter_map(|(place, step)| {
                    let scene = scenes.iter().find(|scene| scene.at == *step)?;
                    let found = scene.standings.iter().find(|other| other.way == standing.way)?;
                    Some((place, value(found.figure)))
                });
                (&*standing.way, figures.collect())
            })
            .collect();
        let all = || series.iter().flat_map(|(_, figures)| figures.iter().map(|(_, figure)| figure));
        let low = all().map(|figure| figure.low).fold(f64::INFINITY, f64::min);
        let high = all().map(|figure| figure.high).fold(0.0, f64::max);

        let root = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw_text(self.title, &text(20.0, BLACK), (16, 12))?;
        root.draw_text(note, &text(13.0, INK), (16, 38))?;
        let (_, body) = root.split_vertically(58);
        let (left, right) = body.split_horizontally(WIDTH - LEGEND);
        let last = self.steps.len() as f64 - 1.0;
        let mut chart = ChartBuilder::on(&left)
            .margin(8)
            .x_label_area_size(44)
            .y_label_area_size(74)
            .build_cartesian_2d(-0.3..last + 0.3, (low * 0.8..high * 1.25).log_scale())?;
        let across = |place: &f64| {
            let whole = (place - place.round()).abs() < 1e-6 && *place >= 0.0;
            self.steps.get(place.round() as usize).filter(|_| whole).map_or(String::new(), usize::to_string)
        };
        chart
            .configure_mesh()
            .x_labels(self.steps.len() * 2)
            .x_label_formatter(&across)
            .y_label_formatter(&|value| if is_round(*value) { short(*value) } else { String::new() })
            .x_desc(self.across)
            .y_desc(self.up)
            .label_style(text(12.0, INK))
            .axis_desc_style(text(13.0, INK))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .draw()?;
        // The legend in the order in which the lines end.
        let mut order: Vec<usize> = (0..series.len()).collect();
        let end = |place: usize| series[place].1.last().map_or(0.0, |(_, figure)| figure.median);
        order.sort_by(|one, other| end(*other).total_cmp(&end(*one)));
        for (row, place) in order.into_iter().enumerate() {
            let (way, figures) = &series[place];
            let colour = COLOURS[place % COLOURS.len()];
            let line = colour.stroke_width(if is_ours(way) { 3 } else { 1 });
            chart.draw_series(LineSeries::new(figures.iter().map(|(x, y)| (*x as f64, y.median)), line))?;
            chart.draw_series(figures.iter().map(|(x, figure)| {
                let Estimate { low, median, high, .. } = *figure;
                ErrorBar::new_vertical(*x as f64, low, median, high, colour.filled(), 6)
            }))?;
            let top = 24 + row as i32 * 24;
            right.draw(&PathElement::new([(8, top + 7), (32, top + 7)], line))?;
            right.draw_text(way, &text(13.0, INK), (40, top))?;
        }
        root.present()?;
        Ok(())
    }
}

/// 1, 2 or 5 times a power of ten: labels between them would touch each other.
fn is_round(value: f64) -> bool {
    let leading = value / 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().any(|round| (leading - round).abs() < 0.01)
}

/// `1.5 M`, `300 k`.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}
