//! The text of `help`, all of it from the table of commands.

use crate::command::{COMMANDS, Spec, Verb};

const WORDS: &str = "\
Words: bare, 'as it stands', \"with \\n \\t \\\\ \\\" \\xHH \\u{1F600}\" or 0xDEADBEEF.
; separates commands, # begins a comment. 'help COMMAND' gives an example.
";

/// The list of commands, or what there is to know about one.
pub fn text(verb: Option<Verb>) -> String {
    match COMMANDS.iter().find(|spec| Some(spec.verb) == verb) {
        Some(spec) => about(spec),
        None => list(),
    }
}

fn list() -> String {
    let width = COMMANDS.iter().map(|spec| brief(spec).len()).max().unwrap_or(0);
    let mut text: String =
        COMMANDS.iter().map(|spec| format!("{:width$}  {}\n", brief(spec), spec.about)).collect();
    text.push('\n');
    text.push_str(WORDS);
    text
}

/// Names and arguments; the options are told by `help COMMAND`.
fn brief(spec: &Spec) -> String {
    let options: Vec<&str> = spec.opts.iter().map(|opt| opt.name).collect();
    let mut text = format!("{} {}", spec.names.join(", "), spec.remaining(0, &options));
    text.truncate(text.trim_end().len());
    if !options.is_empty() {
        text.push_str(" [--...]");
    }
    text
}

fn about(spec: &Spec) -> String {
    let mut text = format!("{}\n\n  {}\n", spec.signature(), spec.about);
    for line in spec.notes.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    if !spec.opts.is_empty() {
        text.push('\n');
    }
    for opt in spec.opts {
        let value = opt.value.map(|(value, _)| format!(" {value}")).unwrap_or_default();
        let about = opt.about.replace('\n', &format!("\n{:25}", ""));
        text.push_str(&format!("  {:21}  {about}\n", format!("{}{value}", opt.name)));
    }
    text.push_str(&format!("\n  example: {}\n", spec.example));
    text
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::command::COMMANDS;

    #[test]
    fn help_shows_every_command_and_fits_a_terminal() {
        let list = text(None);
        for spec in COMMANDS {
            assert!(list.contains(spec.about), "{}", spec.name());
            let about = text(Some(spec.verb));
            assert!(about.contains(&format!("example: {}", spec.example)), "{about}");
            for line in about.lines().chain(list.lines()) {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}
