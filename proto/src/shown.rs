//! Text from elsewhere, as it may appear in a message.

/// Returns at most so many characters of a text, safe for a terminal and on one line: other characters are escaped, and
/// quotes stay as they are.
pub fn shown(text: &str, chars_max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(4 * chars_max));
    for c in text.chars().take(chars_max) {
        if is_plain(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

/// Whether a terminal shows a character where it is, on the same line. The two joiners are: scripts and emoji need them.
pub const fn is_plain(c: char) -> bool {
    match c {
        // Control characters, C0 and C1.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => false,
        // Marks and overrides of direction, separators of lines, spaces of no width, invisible operators and tags.
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => false,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_letters_stay_and_what_moves_a_cursor_does_not() {
        assert_eq!(
            shown("the operator's \"secret\" is ü, 漢", 100),
            "the operator's \"secret\" is ü, 漢"
        );
        assert_eq!(shown("a\x1b[2J\nb", 100), "a\\u{1b}[2J\\nb");
        assert_eq!(shown("\u{202e}01", 100), "\\u{202e}01");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(shown("abcdef", 3), "abc");
    }
}
