//! Curves over the steps of a run, drawn as SVG.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::escaped;

const COLOURS: [&str; 6] = ["#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2"];

/// Of the drawing, and what is kept free for numbers.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;

/// Points that a curve is drawn with; more are taken together.
const POINTS: usize = 300;

/// A named curve.
pub(super) struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// Of finite values by step; where there are many, the mean of those that follow each other.
    pub(super) fn new(name: &str, values: &BTreeMap<usize, f64>) -> Self {
        let points: Vec<(f64, f64)> =
            values.iter().filter(|(_, value)| value.is_finite()).map(|(step, value)| (*step as f64, *value)).collect();
        let together = points.len().div_ceil(POINTS).max(1);
        let mean = |part: &[(f64, f64)]| {
            let count = part.len() as f64;
            let (steps, values) = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
            (steps / count, values / count)
        };
        Series { name: name.to_owned(), points: points.chunks(together).map(mean).collect() }
    }
}

/// The curves in one picture; nothing without points.
pub(super) fn chart(title: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    if points().next().is_none() {
        return String::new();
    }
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let fold = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        let (low, high) = points().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), fold);
        if low < high { (low, high) } else { (low - 0.5 * low.abs().max(1e-9), high + 0.5 * high.abs().max(1e-9)) }
    };
    let ((first, last), (low, high)) = (bounds(|point| point.0), bounds(|point| point.1));
    let x = |step: f64| LEFT + (step - first) / (last - first) * (WIDTH - LEFT - 10.0);
    let y = |value: f64| TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" font-size=\"11\" fill=\"currentColor\">\n");
    for part in 0..=4 {
        let value = low + (high - low) * f64::from(part) / 4.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"currentColor\" stroke-opacity=\"0.15\" />\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y(value) + 4.0,
            number(value),
            y = y(value),
        );
    }
    for (step, anchor) in [(first, "start"), (last, "end")] {
        let at = x(step);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">step {step:.0}</text>",
            HEIGHT - 6.0
        );
    }
    let mut legend = String::new();
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let line: Vec<String> =
            series.points.iter().map(|(step, value)| format!("{:.1},{:.1}", x(*step), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-linejoin=\"round\" />",
            line.join(" ")
        );
        if series.points.len() <= 40 {
            for (step, value) in &series.points {
                let _ = write!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"><title>step {step:.0}: {}</title></circle>",
                    x(*step),
                    y(*value),
                    number(*value)
                );
            }
        }
        let end = series.points.last().map_or(String::new(), |(_, value)| number(*value));
        let _ = write!(legend, " <span style=\"color: {colour}\">● {} {end}</span>", escaped(&series.name));
    }
    format!("<figure>\n<figcaption>{}{legend}</figcaption>\n{svg}</svg>\n</figure>\n", escaped(title))
}

/// Four digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.4}"),
    }
}
