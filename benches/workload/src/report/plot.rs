//! Plots as SVG: values over a common axis, readable on a screen, offline and in print.

use std::fmt::{self, Write as _};

/// The drawing's size, and the room around the axes, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Told apart also in grey and by those who do not tell red from green.
const COLOURS: [&str; 5] = ["#1f5fa8", "#d1731b", "#4d8f3a", "#8a4fa0", "#555555"];

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it shows.
    pub label: String,
    /// Points, in the order of x. Those that are no number are left out.
    pub points: Vec<(f64, f64)>,
}

/// A plot. Both axes begin at 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// What it shows, for those who cannot see it too.
    pub title: String,
    /// The unit of x.
    pub x_unit: String,
    /// The unit of y.
    pub y_unit: String,
    /// Lines.
    pub lines: Vec<Line>,
}

/// Steps of an axis from 0 to at least `most`: 1, 2 or 5 times a power of ten, four to ten of them.
fn step(most: f64) -> f64 {
    if !(most.is_finite() && most > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf((most / 10.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0, 20.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| most / step <= 8.0)
        .unwrap_or(20.0 * power)
}

/// A number on an axis: `1.5k`, `20M`.
fn short(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        large if large >= 1e9 => (value / 1e9, "G"),
        large if large >= 1e6 => (value / 1e6, "M"),
        large if large >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{suffix}")
}

/// Text between tags.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What XML has no place for.
            letter if letter.is_control() && !letter.is_whitespace() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

impl Plot {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines
            .iter()
            .flat_map(|line| line.points.iter().copied().filter(is_number))
    }
}

fn is_number(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

impl fmt::Display for Plot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let greatest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let (x_most, y_most) = (
            greatest(&mut self.points().map(|point| point.0)),
            greatest(&mut self.points().map(|point| point.1)),
        );
        let (x_step, y_step) = (step(x_most), step(y_most));
        let x_end = if x_most > 0.0 { x_most } else { x_step };
        let y_end = (y_most / y_step).ceil().max(1.0) * y_step;
        let (wide, high) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let x_of = |x: f64| LEFT + x.clamp(0.0, x_end) / x_end * wide;
        let y_of = |y: f64| TOP + high - y.clamp(0.0, y_end) / y_end * high;
        let title = escape(&self.title);
        writeln!(
            f,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
        )?;
        let mut grid = String::new();
        for number in 0..=(y_end / y_step).round() as u32 {
            let value = f64::from(number) * y_step;
            let y = y_of(value);
            let _ = writeln!(
                grid,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                short(value)
            );
        }
        for number in 0..=(x_end / x_step).floor() as u32 {
            let value = f64::from(number) * x_step;
            let _ = writeln!(
                grid,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x_of(value),
                HEIGHT - BOTTOM + 16.0,
                short(value)
            );
        }
        f.write_str(&grid)?;
        writeln!(
            f,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"4\" y=\"{:.1}\" transform=\"rotate(-90 12 {:.1})\" \
             text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 6.0,
            escape(&self.x_unit),
            TOP + high / 2.0,
            TOP + high / 2.0,
            escape(&self.y_unit)
        )?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<String> = line
                .points
                .iter()
                .filter(|point| is_number(point))
                .map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y)))
                .collect();
            writeln!(
                f,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>",
                points.join(" ")
            )?;
        }
        if self.lines.len() > 1 {
            let mut x = LEFT;
            for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
                let y = HEIGHT - 10.0;
                writeln!(
                    f,
                    "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                    y - 6.0,
                    x + 16.0,
                    escape(&line.label)
                )?;
                x += 32.0 + 7.0 * line.label.chars().count() as f64;
            }
        }
        writeln!(f, "</svg>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> String {
        Plot {
            title: "<b> & \"c\"".into(),
            x_unit: "s".into(),
            y_unit: "1/s".into(),
            lines: vec![Line {
                label: "one".into(),
                points,
            }],
        }
        .to_string()
    }

    #[test]
    fn axes_have_round_steps_few_enough_to_read() {
        for most in [1e-6, 0.3, 1.0, 7.0, 9.99, 42.0, 1e3, 123_456.0, 9e12] {
            let steps = most / step(most);
            assert!((1.5..=8.0).contains(&steps), "{most}: {steps}");
        }
        for none in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(step(none) > 0.0);
        }
        assert_eq!(
            [0.0, 0.5, 9_500.0, 12_000.0, 2.5e6].map(short),
            ["0", "0.5", "9500", "12k", "2.5M"]
        );
    }

    #[test]
    fn a_plot_of_anything_is_within_its_frame_and_names_are_escaped() {
        for points in [
            vec![],
            vec![(0.0, 0.0)],
            vec![(0.0, 5.0), (1.0, f64::NAN), (f64::INFINITY, 1.0), (2.0, 1e300)],
            vec![(-5.0, -5.0), (3.0, 2.0)],
        ] {
            let svg = plot(points);
            assert!(
                svg.contains("&lt;b&gt; &amp; &quot;c&quot;") && !svg.contains("<b>"),
                "{svg}"
            );
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let line = svg.lines().find(|line| line.starts_with("<polyline")).expect("a line");
            let points = line.split("points=\"").nth(1).expect("points").trim_end_matches("\"/>");
            for point in points.split_whitespace() {
                let (x, y) = point.split_once(',').expect("a point");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!(
                    (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y),
                    "{x} {y}"
                );
            }
        }
    }
}
