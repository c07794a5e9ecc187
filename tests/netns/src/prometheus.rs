//! A real Prometheus in a node's namespace, which scrapes the agents of both nodes.
//!
//! Its storage is in the run's directory, and the process is killed when the handle is dropped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::inside::in_netns;
use harness::node::binary;
use harness::wait::eventually_ok;
use harness::{Http, Node, Run, client, command};
use serde_json::Value;

/// Where it listens.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);
/// Starting takes it a moment, on a busy machine a longer one.
const LIMIT: Duration = Duration::from_secs(60);
/// The job of the agents.
pub const JOB: &str = "ztunnel";

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    node: Node,
    log: PathBuf,
    child: Child,
}

impl Prometheus {
    /// Starts it in the namespace of a node, and waits until every target was scraped.
    ///
    /// # Errors
    ///
    /// There is no Prometheus on this machine, it does not start, or a target does not answer; the log's end is in the error.
    pub fn start(run: &Run, node: &Node, targets: &[SocketAddr]) -> Result<Self> {
        let directory = run.dir().join("prometheus");
        fs::create_dir_all(&directory)?;
        let (config, log) = (directory.join("prometheus.yml"), directory.join("log"));
        let listed: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let listed = listed.join(", ");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
                 scrape_configs:\n- {{job_name: {JOB}, static_configs: [{{targets: [{listed}]}}]}}\n"
            ),
        )?;
        let program = binary("PROMETHEUS_BIN", "prometheus")?;
        let mut start = command::in_netns(node.netns(), &program);
        start
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={}", SocketAddr::from(ADDRESS)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let child = start.spawn().with_context(|| format!("starting {}", program.display()))?;
        let prometheus = Self { node: node.clone(), log, child };
        eventually_ok("every agent to be scraped", LIMIT, || {
            let up = prometheus.query(&format!("up{{job=\"{JOB}\"}} == 1"))?;
            ensure!(up.len() == targets.len(), "{} of {} are up", up.len(), targets.len());
            Ok(())
        })
        .with_context(|| fs::read_to_string(&prometheus.log).unwrap_or_default())?;
        Ok(prometheus)
    }

    /// What a query returns at this moment: its samples, each with `metric` and `value`.
    ///
    /// # Errors
    ///
    /// It does not answer, or says that the query is wrong.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(query)))?;
        let result = answer.pointer("/data/result").and_then(Value::as_array);
        Ok(result.with_context(|| format!("no result: {answer}"))?.clone())
    }

    /// What a query returned over a time since 1970: its series, each with `metric` and `values`.
    ///
    /// # Errors
    ///
    /// It does not answer, or says that the query is wrong.
    pub fn range(&self, query: &str, since: Duration, until: Duration, step: Duration) -> Result<Vec<Value>> {
        let (query, since, until) = (encoded(query), since.as_secs(), until.as_secs());
        let path =
            format!("/api/v1/query_range?query={query}&start={since}&end={until}&step={}", step.as_secs());
        let answer = self.ask(&path)?;
        let result = answer.pointer("/data/result").and_then(Value::as_array);
        Ok(result.with_context(|| format!("no result: {answer}"))?.clone())
    }

    /// The labels of all series of the agents.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn series(&self) -> Result<Vec<Value>> {
        let answer =
            self.ask(&format!("/api/v1/series?match[]={}", encoded(&format!("{{job=\"{JOB}\"}}"))))?;
        Ok(answer.get("data").and_then(Value::as_array).context("no series")?.clone())
    }

    /// What agents said of their metrics: by family, a list of `type` and `help`.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn metadata(&self) -> Result<Value> {
        Ok(self.ask("/api/v1/metadata")?.get("data").context("no metadata")?.clone())
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let to = SocketAddr::from(ADDRESS);
        let stream = in_netns(self.node.netns(), || client::connect(to, client::LIMIT))?;
        let reply = Http::new(stream.context("connecting to Prometheus")?)?.get(path)?;
        ensure!(reply.status == 200, "{path}: {} {}", reply.status, reply.body);
        serde_json::from_str(&reply.body).with_context(|| reply.body.clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As a part of a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
