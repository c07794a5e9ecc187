use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::format::{DefaultFields, FormatEvent};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;

use super::*;

/// What is logged.
#[derive(Clone, Default)]
pub(crate) struct Written(pub(crate) Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that a form makes of one event.
fn line(format: impl FormatEvent<Registry, DefaultFields> + Send + Sync + 'static) -> String {
    let written = Written::default();
    let writer = written.clone();
    let layer = tracing_subscriber::fmt::layer().event_format(format).with_writer(move || writer.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::warn!(target: "culvert::a::b", zebra = "z \"quoted\"", bytes = 7_u64, addr = %"10.0.0.1:80", "it\nhappened");
    });
    let bytes = written.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn json_has_its_keys_in_the_order_of_the_plain_line() {
    let line = line(json::Json);
    let (head, rest) = line.split_once(r#""time":""#).unwrap();
    assert_eq!(head, r#"{"level":"warn","#);
    let (time, rest) = rest.split_once('"').unwrap();
    assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000Z".len(), "{time}");
    let expected =
        r#","scope":"a:b","message":"it\nhappened","zebra":"z \"quoted\"","bytes":7,"addr":"10.0.0.1:80"}"#;
    assert_eq!(rest, format!("{expected}\n"));
}

#[test]
fn plain_is_one_line_of_columns() {
    let line = line(plain::Plain);
    let (_, rest) = line.split_once('\t').unwrap();
    assert_eq!(rest, "warn\ta:b\tit\\nhappened\tzebra=\"z \\\"quoted\\\"\" bytes=7 addr=10.0.0.1:80\n");
}
