//! Plots as SVG: values over a common axis, readable on a screen, offline and in print.

use super::axis::{Axis, Scale};
use std::fmt::{self, Write as _};

/// The drawing's size, and the room around the axes, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 244.0;
/// Size of a small one: two are beside each other.
const SMALL: (f64, f64) = (380.0, 174.0);
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// The height of a row of labels, and the width of a letter in them, about.
const ROW: f64 = 16.0;
const LETTER: f64 = 7.0;
/// Told apart also in grey and by those who do not tell red from green.
const COLOURS: [&str; 5] = ["#1f5fa8", "#d1731b", "#4d8f3a", "#8a4fa0", "#555555"];
/// Strokes: together with the colours, 25 lines that differ.
const DASHES: [&str; 5] = ["", "7 3", "2 2.5", "9 3 2 3", "4 4"];

/// One line of a plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Name of the line.
    pub label: String,
    /// Points, in the order of x. One that is no number, or that an axis cannot show, breaks the line.
    pub points: Vec<(f64, f64)>,
}

/// Marks of points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Joined.
    #[default]
    Lines,
    /// Each by itself.
    Dots,
}

/// A plot. Linear axes begin at 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    /// Title of the plot, for those who cannot see it too.
    pub title: String,
    /// The unit of x.
    pub x_unit: String,
    /// The unit of y.
    pub y_unit: String,
    /// Lines.
    pub lines: Vec<Line>,
    /// Scale of x.
    pub x_axis: Axis,
    /// Scale of y.
    pub y_axis: Axis,
    /// A value that x reaches at least, so that plots of a page have the same times.
    pub x_most: Option<f64>,
    /// Marks of points.
    pub marks: Marks,
    /// Whether two are beside each other. A small one shows its title.
    pub is_small: bool,
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
            // Characters that XML does not allow.
            letter if letter.is_control() && !letter.is_whitespace() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// A plot's axes and where they are.
struct Frame {
    x: Scale,
    y: Scale,
    width: f64,
    height: f64,
    top: f64,
}

impl Frame {
    fn new(plot: &Plot) -> Self {
        let points = || {
            let all = plot.lines.iter().flat_map(|line| line.points.iter().copied());
            all.filter(|point| point.0.is_finite() && point.1.is_finite())
        };
        let (width, height) = if plot.is_small { SMALL } else { (WIDTH, HEIGHT) };
        Self {
            x: Scale::new(plot.x_axis, points().map(|point| point.0).chain(plot.x_most), false),
            y: Scale::new(plot.y_axis, points().map(|point| point.1), true),
            width,
            height,
            top: if plot.is_small { TOP + ROW } else { TOP },
        }
    }

    fn x_at(&self, place: f64) -> f64 {
        LEFT + place * (self.width - LEFT - RIGHT)
    }

    fn y_at(&self, place: f64) -> f64 {
        self.height - BOTTOM - place * (self.height - self.top - BOTTOM)
    }

    fn point(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x_at(self.x.at(x)?), self.y_at(self.y.at(y)?)))
    }

    /// The grid, the marks of both axes, and their units.
    fn write(&self, f: &mut fmt::Formatter<'_>, plot: &Plot) -> fmt::Result {
        for (place, text) in self.y.marks() {
            let y = self.y_at(place);
            writeln!(
                f,
                "<line class=\"grid\" stroke=\"#e3e7ec\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{text}</text>",
                self.width - RIGHT,
                LEFT - 6.0,
                y + 4.0
            )?;
        }
        // End of the one before: marks that would run into each other are left out.
        let mut end = f64::NEG_INFINITY;
        for (place, text) in self.x.marks() {
            let (x, half) = (self.x_at(place), text.chars().count() as f64 * LETTER / 2.0);
            if plot.x_axis != Axis::Linear {
                writeln!(
                    f,
                    "<line class=\"grid\" stroke=\"#e3e7ec\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                    self.top,
                    self.height - BOTTOM
                )?;
            }
            if x - half < end + 4.0 {
                continue;
            }
            end = x + half;
            writeln!(
                f,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                self.height - BOTTOM + 18.0
            )?;
        }
        let middle = (self.top + self.height - BOTTOM) / 2.0;
        writeln!(
            f,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"4\" y=\"{middle:.1}\" transform=\"rotate(-90 12 \
             {middle:.1})\" text-anchor=\"middle\">{}</text>",
            self.width - RIGHT,
            self.height - 6.0,
            escape(&plot.x_unit),
            escape(&plot.y_unit)
        )
    }

    /// A line, in pieces between what cannot be shown.
    fn line(&self, f: &mut fmt::Formatter<'_>, points: &[(f64, f64)], stroke: &str) -> fmt::Result {
        let places: Vec<Option<(f64, f64)>> = points.iter().map(|point| self.point(*point)).collect();
        for piece in places.split(Option::is_none) {
            let piece: Vec<String> = piece.iter().flatten().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            match piece.as_slice() {
                [] => {}
                // A line of one point would not be seen.
                [one] => {
                    let at = one.replace(',', " ");
                    writeln!(
                        f,
                        "<path d=\"M{at}h.1\" fill=\"none\" {stroke} stroke-linecap=\"round\"/>"
                    )?;
                }
                piece => writeln!(f, "<polyline fill=\"none\" {stroke} points=\"{}\"/>", piece.join(" "))?,
            }
        }
        Ok(())
    }

    /// Dots, as one path.
    fn dots(&self, f: &mut fmt::Formatter<'_>, points: &[(f64, f64)], colour: &str) -> fmt::Result {
        let mut path = String::new();
        for (x, y) in points.iter().filter_map(|point| self.point(*point)) {
            // Writing to a String does not fail.
            let _ = write!(path, "M{x:.1} {y:.1}h.1");
        }
        if path.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"4\" stroke-opacity=\".55\" stroke-linecap=\"round\"/>"
        )
    }
}

impl Plot {
    /// The colour of a line, and its stroke.
    fn style(&self, number: usize) -> (&'static str, String) {
        let colour = COLOURS.get(number % COLOURS.len()).copied().unwrap_or("#000");
        let dash = DASHES
            .get((number + number / COLOURS.len()) % DASHES.len())
            .copied()
            .unwrap_or("");
        let dash = match dash {
            "" => String::new(),
            dash => format!(" stroke-dasharray=\"{dash}\""),
        };
        (colour, format!("stroke=\"{colour}\" stroke-width=\"1.6\"{dash}"))
    }

    /// Returns the place of each line's label, in rows, and the number of rows.
    fn labels(&self, width: f64) -> (Vec<(f64, f64)>, f64) {
        if self.lines.len() < 2 {
            return (Vec::new(), 0.0);
        }
        // The unit of x is at the right end of the first row.
        let first_end = width - RIGHT - 12.0 - LETTER * self.x_unit.chars().count() as f64;
        let (mut x, mut row) = (LEFT, 0.0);
        let mut places = Vec::new();
        for line in &self.lines {
            let wide = 40.0 + LETTER * line.label.chars().count() as f64;
            let end = if row == 0.0 { first_end } else { width - RIGHT };
            if x > LEFT && x + wide > end {
                (x, row) = (LEFT, row + 1.0);
            }
            places.push((x, row));
            x += wide;
        }
        (places, row)
    }
}

impl fmt::Display for Plot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = Frame::new(self);
        let (labels, rows) = self.labels(frame.width);
        let title = escape(&self.title);
        let class = if self.is_small { " class=\"small\"" } else { "" };
        writeln!(
            f,
            "<svg{class} viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>",
            frame.width,
            frame.height + rows * ROW
        )?;
        if self.is_small {
            writeln!(f, "<text x=\"4\" y=\"{TOP}\">{title}</text>")?;
        }
        frame.write(f, self)?;
        for (number, line) in self.lines.iter().enumerate() {
            let (colour, stroke) = self.style(number);
            match self.marks {
                Marks::Lines => frame.line(f, &line.points, &stroke)?,
                Marks::Dots => frame.dots(f, &line.points, colour)?,
            }
        }
        for (number, ((x, row), line)) in labels.into_iter().zip(&self.lines).enumerate() {
            let y = frame.height - 6.0 + row * ROW;
            let (colour, stroke) = self.style(number);
            let stroke = match self.marks {
                Marks::Lines => stroke,
                Marks::Dots => format!("stroke=\"{colour}\" stroke-width=\"4\""),
            };
            writeln!(
                f,
                "<line x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" {stroke}/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                x + 24.0,
                y - 4.0,
                y - 4.0,
                x + 28.0,
                escape(&line.label)
            )?;
        }
        writeln!(f, "</svg>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        Plot {
            title: "<b> & \"c\"".into(),
            x_unit: "s".into(),
            y_unit: "1/s".into(),
            lines: vec![Line {
                label: "one".into(),
                points,
            }],
            ..Plot::default()
        }
    }

    /// The places of all pieces of lines.
    fn places(svg: &str) -> Vec<Vec<(f64, f64)>> {
        let number = |text: &str| text.parse::<f64>().expect("a number");
        let piece = |line: &str| {
            let points = line.split("points=\"").nth(1).expect("points").trim_end_matches("\"/>");
            let points = points
                .split_whitespace()
                .map(|point| point.split_once(',').expect("a point"));
            points.map(|(x, y)| (number(x), number(y))).collect()
        };
        svg.lines()
            .filter(|line| line.starts_with("<polyline"))
            .map(piece)
            .collect()
    }

    #[test]
    fn a_plot_of_anything_is_within_its_frame_and_names_are_escaped() {
        let axes = [Axis::Linear, Axis::Log, Axis::Percentile];
        for points in [
            vec![],
            vec![(0.0, 0.0)],
            vec![(0.0, 5.0), (1.0, f64::NAN), (f64::INFINITY, 1.0), (2.0, 1e300)],
            vec![(-5.0, -5.0), (3.0, 2.0)],
            vec![(0.1, 1e-300), (0.5, 1.0), (0.99999, 1e9), (1.0, 2e9)],
        ] {
            for (x_axis, y_axis) in axes.into_iter().flat_map(|x| axes.map(|y| (x, y))) {
                for marks in [Marks::Lines, Marks::Dots] {
                    let svg = Plot {
                        x_axis,
                        y_axis,
                        marks,
                        ..plot(points.clone())
                    }
                    .to_string();
                    assert!(
                        svg.contains("&lt;b&gt; &amp; &quot;c&quot;") && !svg.contains("<b>"),
                        "{svg}"
                    );
                    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                    for (x, y) in places(&svg).into_iter().flatten() {
                        assert!(
                            (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y),
                            "{x} {y}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_that_is_missing_breaks_the_line() {
        let hole = vec![
            (0.0, 1.0),
            (1.0, 2.0),
            (2.0, f64::NAN),
            (3.0, 2.0),
            (4.0, 1.0),
            (5.0, f64::NAN),
            (6.0, 1.0),
        ];
        let svg = plot(hole).to_string();
        assert_eq!(places(&svg).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(svg.matches("<path").count(), 1);
    }

    #[test]
    fn twenty_five_lines_differ_and_their_labels_take_rows() {
        let mut many = plot(Vec::new());
        let line = |number: usize| Line {
            label: format!("relay node {number}"),
            points: vec![(0.0, 1.0), (1.0, number as f64)],
        };
        many.lines = (0..25).map(line).collect();
        let strokes: std::collections::BTreeSet<String> = (0..25).map(|number| many.style(number).1).collect();
        assert_eq!(strokes.len(), 25);
        let (labels, rows) = many.labels(WIDTH);
        assert!(labels.len() == 25 && rows >= 3.0);
        assert!(many.to_string().contains(&format!("0 0 760 {}", HEIGHT + rows * ROW)));
    }

    #[test]
    fn plots_of_a_page_can_have_the_same_times() {
        let mut wide = plot(vec![(0.0, 1.0), (10.0, 1.0)]);
        wide.x_most = Some(20.0);
        let places = places(&wide.to_string());
        assert!(
            (places[0][1].0 - (LEFT + (WIDTH - LEFT - RIGHT) / 2.0)).abs() < 0.1,
            "{places:?}"
        );
    }
}
