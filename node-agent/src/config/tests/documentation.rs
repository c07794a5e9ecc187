//! docs/configuration.md says of every setting what the tables of settings say, and of nothing else.

use super::*;
use crate::config::setting::Face;

const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");
const LIMITS: &str = include_str!("../../../../docs/limits.md");

fn row(face: &Face) -> String {
    let default = match (face.in_cluster, face.default) {
        (Some(in_cluster), _) => format!("`{in_cluster}` in a cluster, without a mesh file; else none"),
        (None, "") => "none".to_owned(),
        (None, default) => format!("`{default}`"),
    };
    let names = format!("`{}` | `{}` | `--{}`", face.key(), face.variable, face.flag);
    format!("| {names} | {default} | {} | {} |", face.about, face.allowed)
}

fn family_row(family: &Family) -> String {
    let names = format!("`{}` | `{}NAME` | `--{} NAME=VALUE`", family.key, family.prefix, family.flag);
    format!("| {names} | none | {} | {} |", family.about, family.allowed)
}

#[test]
fn every_setting_is_documented_and_nothing_else() {
    let mut expected = Vec::new();
    for section in SECTIONS {
        expected.push(format!("## {}", section.title));
        expected.extend(section.settings.iter().map(|known| row(known.face())));
        expected.extend(section.families.iter().map(family_row));
    }
    let titles: Vec<_> = SECTIONS.iter().map(|section| format!("## {}", section.title)).collect();
    let is_ours = |line: &&str| line.starts_with("| `") || titles.iter().any(|title| title == line);
    let documented: Vec<_> = DOCUMENT.lines().filter(is_ours).collect();
    let missing: Vec<_> = expected.iter().filter(|row| !documented.contains(&row.as_str())).collect();
    let superfluous: Vec<_> =
        documented.iter().filter(|row| !expected.iter().any(|own| own == *row)).collect();
    assert!(
        missing.is_empty() && superfluous.is_empty(),
        "docs/configuration.md lacks {missing:#?} and has {superfluous:#?}"
    );
    assert_eq!(documented, expected, "the order of docs/configuration.md");
}

#[test]
fn the_example_is_a_configuration_file() {
    let (_, example) = DOCUMENT.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let file = Temporary::new("example.yaml", example);
    let who = [("POD_NAME", "p"), ("POD_NAMESPACE", "n"), ("INSTANCE_IP", "10.0.0.1")];
    let config = read(&[&file.flag()], &who).unwrap();
    let said = config.effective.rows.iter().filter(|row| matches!(row.source, Source::File { .. })).count();
    assert!(said >= 5, "the example says something");
}

#[test]
fn the_document_of_limits_agrees_about_names_and_defaults() {
    let mut documented = 0;
    for line in LIMITS.lines().filter(|line| line.starts_with("| `--")) {
        let cells: Vec<_> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [flag, variable, default, ..] = cells.as_slice() else { panic!("{line}") };
        let known = settings().find(|known| known.face().flag == flag.trim_start_matches("--")).unwrap();
        let face = known.face();
        let default = default.split(", ").next().unwrap().trim_matches('*');
        assert_eq!((*variable, default), (face.variable, face.default), "{line}");
        documented += 1;
    }
    assert_eq!(documented, limits::SECTION.settings.len());
}
