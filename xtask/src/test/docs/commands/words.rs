//! Words of a command line: which of our subcommands it asks for, and what it names in capitals for a reader to fill in.

/// Subcommands that have subcommands.
const GROUPS: [&str; 1] = ["policy"];

/// Our subcommands that a command line asks for, also behind `--` and in pipes.
pub(super) fn asked(command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let ours = words.iter().enumerate().filter(|(at, word)| **word == "culvert" && is_program(&words, *at));
    let subcommand = |at: usize| {
        let first = words.get(at + 1).filter(|word| is_subcommand(word))?;
        let second = words.get(at + 2).filter(|word| GROUPS.contains(first) && is_subcommand(word));
        Some(second.map_or_else(|| (*first).to_owned(), |second| format!("{first} {second}")))
    };
    ours.filter_map(|(at, _)| subcommand(at)).collect()
}

/// Whether the word at a place is a program and no argument, such as the name of a release.
fn is_program(words: &[&str], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| words.get(before));
    before.is_none_or(|before| matches!(*before, "|" | "--" | "&&" | "||" | "do"))
}

fn is_subcommand(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// A command line with its names in capitals replaced, wherever they stand alone.
pub(super) fn filled(command: &str, names: &[(&str, &str)]) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut filled = String::with_capacity(command.len());
    let mut rest = command;
    while let Some(begin) = rest.find(is_part) {
        let (before, from) = rest.split_at(begin);
        let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
        filled.push_str(before);
        let found = names.iter().find(|(name, _)| *name == word);
        filled.push_str(found.map_or(word, |(_, value)| value));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// What a command line looks for in a log, between quotation marks; whatever else it looks for is for others to check.
pub(super) fn sought_in_log(command: &str) -> Option<&str> {
    let is_of_log = command.starts_with("kubectl ") && command.contains(" logs ") || command.contains(".log");
    let (_, after) = command.split_once("grep ").filter(|_| is_of_log)?;
    after.split('\'').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_subcommands_are_found_where_they_are_programs() {
        for (command, expected) in [
            ("culvert pods -o json | jq -r .", &["pods"][..]),
            ("culvert policy check --from none", &["policy check"]),
            ("kubectl exec daemonset/ztunnel -- culvert verify", &["verify"]),
            ("helm install culvert deploy/helm/culvert", &[]),
            ("culvert --node NODE", &[]),
            ("culvert COMMAND --help", &[]),
            ("culvert man trace | man -l -", &["man"]),
        ] {
            assert_eq!(asked(command), expected, "{command}");
        }
    }

    #[test]
    fn what_is_sought_in_a_log_is_found() {
        assert_eq!(sought_in_log("kubectl -n a logs b | grep -i 'CNI plugin'"), Some("CNI plugin"));
        assert_eq!(sought_in_log("grep 'mesh file' /var/log/x.log"), Some("mesh file"));
        assert_eq!(sought_in_log("kubectl logs b | grep access"), None);
        assert_eq!(sought_in_log("curl -s localhost | grep 'a=\"b\"'"), None);
    }

    #[test]
    fn names_are_filled_in_where_they_stand_alone() {
        let names = [("NAMESPACE", "default"), ("POD", "sleep"), ("POD-OF", "x")];
        assert_eq!(filled("verify NAMESPACE/POD \"POD\"", &names), "verify default/sleep \"sleep\"");
        assert_eq!(filled("logs POD-OF | grep PODS MY_POD", &names), "logs x | grep PODS MY_POD");
    }
}
