//! Tables for a person.

use super::Style;
use super::style::printable;
use comfy_table::{ContentArrangement, Table, presets};
use std::fmt;

/// Writes rows under their heads, in columns, without lines: easy to read and to cut.
pub(crate) fn table(
    to: &mut dyn fmt::Write,
    style: &Style,
    heads: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> fmt::Result {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.add_row(heads.iter().map(|head| (*head).to_owned()));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for (number, line) in table.to_string().lines().enumerate() {
        let line = line.trim_end();
        if number == 0 {
            writeln!(to, "{}", style.dim(line))?
        } else {
            writeln!(to, "{line}")?
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_where_their_text_does() {
        let mut text = String::new();
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), "2\x1b[2J".to_owned()],
        ];
        table(&mut text, &Style::PLAIN, &["name", "n"], rows).expect("written");
        assert_eq!(text, "name  n\na     1\nlong  2\\u{1b}[2J\n");
    }
}
