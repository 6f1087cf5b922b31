//! Reports for people: one page of HTML that needs nothing else.

mod axis;
mod plot;

pub use axis::Axis;
pub use plot::{Line, Marks, Plot};

use plot::escape;
use std::fmt;

/// No script, nothing from elsewhere.
const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1f24; max-width: 800px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 1.8em; }
table { border-collapse: collapse; margin: .6em 0; } th, td { padding: .2em .9em .2em 0; text-align: right; }
th:first-child, td:first-child { text-align: left; } td:nth-child(n+3) { white-space: nowrap; } th { color: #5a6470; font-weight: 500; border-bottom: 1px solid #c8ced6; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: #5a6470; } .grid { stroke: #e3e7ec; }
svg.small { width: 49%; } h1, p, td { overflow-wrap: anywhere; } table.facts td { text-align: left; vertical-align: top; }
table.facts td:first-child { color: #5a6470; min-width: 11em; }
p.bad { color: #a3271f; font-weight: 600; }
@media print { body { margin: 0; max-width: none; } h2, table, svg { break-inside: avoid; } h2 { break-after: avoid; } }
";

/// A part of a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A heading.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A paragraph that says that something is wrong.
    Bad(String),
    /// Rows under their heads.
    Table {
        /// The heads of the columns. Without any, the rows are facts: a name and what there is to say.
        heads: Vec<String>,
        /// The rows.
        rows: Vec<Vec<String>>,
    },
    /// A plot.
    Plot(Plot),
}

/// A page. [`fmt::Display`] writes it as HTML.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// Its parts.
    pub parts: Vec<Part>,
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = escape(&self.title);
        writeln!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
             'unsafe-inline'\">\n<title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>"
        )?;
        for part in &self.parts {
            match part {
                Part::Heading(text) => writeln!(f, "<h2>{}</h2>", escape(text))?,
                Part::Text(text) => writeln!(f, "<p>{}</p>", escape(text))?,
                Part::Bad(text) => writeln!(f, "<p class=\"bad\">{}</p>", escape(text))?,
                Part::Table { heads, rows } => {
                    let cells = |cells: &[String], tag: &str| -> String {
                        cells
                            .iter()
                            .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)))
                            .collect()
                    };
                    match heads.is_empty() {
                        true => writeln!(f, "<table class=\"facts\">")?,
                        false => writeln!(f, "<table><tr>{}</tr>", cells(heads, "th"))?,
                    }
                    for row in rows {
                        writeln!(f, "<tr>{}</tr>", cells(row, "td"))?;
                    }
                    writeln!(f, "</table>")?;
                }
                Part::Plot(plot) => write!(f, "{plot}")?,
            }
        }
        writeln!(f, "</body>\n</html>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_shows_is_text_and_it_asks_for_nothing_else() {
        let evil = "<script>alert(1)</script>";
        let page = Page {
            title: evil.into(),
            parts: vec![
                Part::Heading(evil.into()),
                Part::Text(evil.into()),
                Part::Bad(evil.into()),
                Part::Table {
                    heads: vec![evil.into()],
                    rows: vec![vec![evil.into()]],
                },
            ],
        };
        let html = page.to_string();
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
        assert!(!html.contains("http://") && !html.contains("https://"));
    }
}
