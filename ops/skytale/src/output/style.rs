//! A little colour, where the terminal takes it.

/// Colours text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    color: bool,
}

impl Style {
    pub(crate) const fn new(color: bool) -> Self {
        Self { color }
    }

    /// Without colour.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self::new(false);

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.paint("1;31", text)
    }
}

/// Text from elsewhere, made safe for a terminal: escaped is what moves the cursor, turns the direction of writing, or is
/// there and not seen.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

/// Whether a terminal shows a character where it is. The two joiners are: scripts and emoji need them.
const fn is_plain(c: char) -> bool {
    match c {
        '\n' | '\t' => true,
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
    fn a_message_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\r\u{9b}\nc"), "a\\u{1b}[2Jb\\r\\u{9b}\nc");
    }

    #[test]
    fn a_message_cannot_turn_or_hide_what_is_read() {
        assert_eq!(printable("pay \u{202e}01\u{202c} now"), "pay \\u{202e}01\\u{202c} now");
        assert_eq!(
            printable("ad\u{200b}min\u{feff}\u{2066}x\u{2028}"),
            "ad\\u{200b}min\\u{feff}\\u{2066}x\\u{2028}"
        );
        let families = "\u{1f468}\u{200d}\u{1f469} \u{646}\u{645}\u{6cc}\u{200c}\u{62e} é 漢";
        assert_eq!(printable(families), families);
    }

    #[test]
    fn without_colour_text_stays_as_it_is() {
        assert_eq!(Style::PLAIN.bad("x"), "x");
        assert_eq!(Style::new(true).bold("x"), "\x1b[1mx\x1b[0m");
    }
}
