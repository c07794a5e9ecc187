//! The configuration as it is shown, and that nothing secret is.

use super::*;
use crate::config::show::{Form, render};

const TOKEN: &str = "eyJhbGciOiJub25lIn0.s3cret.x";

fn with_secrets() -> Config {
    let who = [
        ("XDS_ADDRESS", "istiod:1"),
        ("POD_NAME", "p"),
        ("POD_NAMESPACE", "n"),
        ("INSTANCE_IP", "10.0.0.1"),
        ("AUTH_TOKEN", TOKEN),
        ("XDS_HEADER_X-KEY", "s3cret-header"),
        ("ISTIO_METAJSON_L", "{\"a\": \"b: #c\"}"),
        ("ISTIO_META_TEXT", "two\nlines \"quoted\""),
    ];
    good(&["--ca-header=x-key=s3cret-header", "--probe-processes=a,b"], &who)
}

#[test]
fn secrets_are_shown_nowhere() {
    let config = with_secrets();
    for form in [Form::Table, Form::Yaml, Form::Json] {
        let text = render(&config.effective, form).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("AUTH_TOKEN") && text.contains("XDS_HEADER_X-KEY"), "{text}");
    }
    assert!(!format!("{config:?}").contains("s3cret"));
    let told = problems(&["--auth-token=s3cret token"], &[]);
    assert!(told.len() == 1 && told[0].starts_with("--auth-token=(secret): "), "{told:#?}");
    let path = good(&["--auth-token=/run/token"], &[]);
    assert!(render(&path.effective, Form::Table).unwrap().contains("/run/token"), "a path is no secret");
}

#[test]
fn yaml_is_a_configuration_file_that_says_the_same() {
    let config = with_secrets();
    let file = Temporary::new("round.yaml", &render(&config.effective, Form::Yaml).unwrap());
    let secrets = [("AUTH_TOKEN", TOKEN), ("XDS_HEADER_X-KEY", "s3cret-header")];
    let again = read(&[&file.flag(), "--ca-header=x-key=s3cret-header"], &secrets).unwrap();
    let values = |config: &Config| -> Vec<_> {
        config
            .effective
            .rows
            .iter()
            .map(|row| (row.key.clone(), row.name.clone(), row.value.clone()))
            .collect()
    };
    assert_eq!(values(&again), values(&config));
    let whole = |mut config: Config| {
        config.effective = Effective::default();
        format!("{config:?}")
    };
    assert_eq!(whole(again), whole(config));
}

#[test]
fn json_has_value_and_source_of_each() {
    let shown = serde_json::to_value(&with_secrets().effective).unwrap();
    assert_eq!(
        shown["xdsAddress"],
        serde_json::json!({"value": "istiod:1", "source": "variable XDS_ADDRESS"})
    );
    assert_eq!(shown["authToken"]["secret"], true);
    assert_eq!(shown["caHeaders"]["x-key"]["source"], "flag --ca-header");
    assert_eq!(shown.as_object().unwrap().len(), settings().count() + 4, "and the families that are used");
}

#[test]
fn the_table_has_a_line_for_each() {
    let config = good(&[], &[]);
    let table = render(&config.effective, Form::Table).unwrap();
    assert_eq!(table.lines().count(), settings().count() + 1);
    assert!(table.lines().any(|line| {
        line.split_whitespace().collect::<Vec<_>>() == ["mesh", "mesh.yaml", "flag", "--mesh"]
    }));
}
