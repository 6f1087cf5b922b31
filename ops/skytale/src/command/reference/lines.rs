//! Whether the commands that a text shows exist: each `skytale` in a line of shell is given to the parser of the command line.

use crate::cli::Cli;
use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A part of a line of shell.
enum Part {
    Word(String),
    /// Operator between two commands.
    Operator,
    /// A redirection, whose target is the next word, unless it names a descriptor.
    Redirection {
        takes_word: bool,
    },
}

/// Returns the problems of the `skytale` commands in one line. One that is only `mentioned` may lack arguments.
pub(super) fn problems(line: &str, mentioned: bool) -> Vec<String> {
    commands(line)
        .into_iter()
        .filter_map(|words| problem(&words, mentioned))
        .collect()
}

fn problem(words: &[String], mentioned: bool) -> Option<String> {
    let error = Cli::try_parse_from(words).err()?;
    let accepted = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::TooFewValues
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => mentioned,
        ErrorKind::InvalidSubcommand => {
            matches!(error.get(ContextKind::InvalidSubcommand), Some(ContextValue::String(name)) if mentioned && is_blank(name, true))
        }
        // A word in capitals is what a reader fills in.
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value)) if is_blank(value, mentioned))
        }
        _ => false,
    };
    if accepted {
        return None;
    }
    let text = error.render().to_string();
    let what = text.lines().next().unwrap_or_default();
    Some(format!("`{}`: {what}", words.join(" ")))
}

/// Whether a reader is to put something else here.
fn is_blank(value: &str, mentioned: bool) -> bool {
    let is_name = !value.is_empty()
        && value
            .chars()
            .all(|letter| letter.is_ascii_uppercase() || "-_|=".contains(letter));
    is_name || value.starts_with('$') || (mentioned && (value.is_empty() || value.contains("...")))
}

/// The `skytale` commands of a line of shell, each as its words.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut is_target = false;
    for part in parts(line).into_iter().chain([Part::Operator]) {
        match part {
            Part::Word(_) if std::mem::take(&mut is_target) => {}
            Part::Word(word) => words.push(word),
            Part::Redirection { takes_word } => is_target = takes_word,
            Part::Operator => commands.push(std::mem::take(&mut words)),
        }
    }
    commands.into_iter().filter_map(skytale).collect()
}

/// The command behind a prompt, assignments and `sudo`, if it is `skytale`.
fn skytale(words: Vec<String>) -> Option<Vec<String>> {
    let is_before = |word: &String| {
        matches!(word.as_str(), "$" | "#" | "sudo" | "time" | "exec" | "nohup")
            || word.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
            })
    };
    let mut words: Vec<String> = words.into_iter().skip_while(is_before).collect();
    let program = words.first_mut()?;
    if program.rsplit('/').next() != Some("skytale") {
        return None;
    }
    *program = "skytale".into();
    Some(words)
}

/// Splits as a shell does, as far as examples go: quotes, escapes, substitutions kept whole, operators, comments.
fn parts(line: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                while let Some(inner) = letters.next() {
                    match inner {
                        _ if inner == letter => break,
                        '\\' if letter == '"' => word.extend(letters.next()),
                        _ => word.push(inner),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(letters.next()),
            '$' if letters.peek() == Some(&'(') => {
                let word = word.get_or_insert_default();
                word.push('$');
                let mut depth = 0_u32;
                for inner in letters.by_ref() {
                    word.push(inner);
                    match inner {
                        '(' => depth += 1,
                        ')' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            // A comment; before the first word it is a prompt.
            '#' if word.is_none() && !parts.is_empty() => break,
            '|' | '&' | ';' | '(' | ')' => {
                parts.extend(word.take().map(Part::Word));
                parts.push(Part::Operator);
            }
            '<' | '>' => {
                // The number of a descriptor is no word.
                if let Some(before) = word.take()
                    && !before.bytes().all(|byte| byte.is_ascii_digit())
                {
                    parts.push(Part::Word(before));
                }
                letters.next_if_eq(&'>');
                let takes_word = letters.next_if_eq(&'&').is_none();
                if !takes_word {
                    while letters
                        .next_if(|digit| digit.is_ascii_digit() || *digit == '-')
                        .is_some()
                    {}
                }
                parts.push(Part::Redirection { takes_word });
            }
            _ if letter.is_whitespace() => parts.extend(word.take().map(Part::Word)),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    parts.extend(word.map(Part::Word));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn shown(line: &str) -> Vec<String> {
        commands(line).into_iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn commands_are_found_where_a_shell_would_run_them() {
        assert_eq!(shown("$ target/release/skytale demo  # as a test"), ["skytale demo"]);
        assert_eq!(
            shown("A=1 skytale key list 2>&1 | skytale config check > out && echo skytale"),
            ["skytale key list", "skytale config check"]
        );
        assert_eq!(
            commands("skytale a \"b c\" 'd|e' f\\ g $(cat x y)")[0][1..],
            ["a", "b c", "d|e", "f g", "$(cat x y)"]
        );
        assert_eq!(shown("echo 'skytale demo'"), Vec::<String>::new());
    }

    #[test]
    fn a_command_that_does_not_exist_is_refused() {
        for line in [
            "skytale demos",
            "skytale demo --message 3",
            "ls; skytale key remove x",
            "skytale channel create",
        ] {
            assert_eq!(problems(line, false).len(), 1, "{line}");
        }
        for line in [
            "skytale demo --messages 3",
            "skytale --help",
            "skytale key revoke KEY-ID",
            "cargo demos",
        ] {
            assert_eq!(problems(line, false), Vec::<String>::new());
        }
    }

    #[test]
    fn a_command_that_is_mentioned_may_lack_arguments_and_nothing_else() {
        assert_eq!(problems("skytale channel", true), Vec::<String>::new());
        assert_eq!(problems("skytale channel create", true), Vec::<String>::new());
        assert_eq!(problems("skytale COMMAND --help", true), Vec::<String>::new());
        assert_eq!(problems("skytale channel creat", true).len(), 1);
        assert_eq!(problems("skytale demo --sizes", true).len(), 1);
    }

    /// Every line of `Examples:` in a help text, with the command that shows it.
    fn examples(command: &clap::Command, path: &str, into: &mut Vec<(String, String)>) {
        let path = format!("{path} {}", command.get_name());
        let texts = [
            command.get_about(),
            command.get_long_about(),
            command.get_after_help(),
            command.get_after_long_help(),
            command.get_before_help(),
            command.get_before_long_help(),
        ];
        for text in texts.into_iter().flatten() {
            let text = text.to_string();
            let lines = text
                .lines()
                .skip_while(|line| !line.trim_start().starts_with("Example"));
            let lines = lines.skip(1).take_while(|line| line.starts_with(' '));
            into.extend(lines.map(|line| (path.trim().to_owned(), line.trim().to_owned())));
        }
        command.get_subcommands().for_each(|inner| examples(inner, &path, into));
    }

    #[test]
    fn every_example_in_a_help_text_can_be_run() {
        let mut found = Vec::new();
        examples(&cli::definition(), "", &mut found);
        assert!(found.len() >= 10, "only {found:?}");
        for (command, line) in found {
            assert_eq!(
                problems(&line, false),
                Vec::<String>::new(),
                "in the help of `{command}`"
            );
            // An example that shows no command of ours shows how to feed one.
            let words = line.split_whitespace().filter(|word| *word == "skytale").count();
            assert_eq!(commands(&line).len(), words, "in the help of `{command}`: {line}");
        }
    }
}
