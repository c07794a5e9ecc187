//! The page: what is done to it, and what it, its console and its network say.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::wait::eventually_ok;
use serde_json::{Value, json};

use crate::pipe::Pipe;
use crate::{Key, LIMIT};

/// One thing as screen readers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is: `button`, `table`, `navigation`.
    pub role: String,
    /// What it is called.
    pub name: String,
}

/// A page of a browser.
#[derive(Debug)]
pub struct Page {
    pipe: Pipe,
}

impl Page {
    /// Takes the one that the browser began with.
    pub(crate) fn attach(mut pipe: Pipe) -> Result<Self> {
        let targets = pipe.call("Target.getTargets", &json!({}))?;
        let targets = targets.get("targetInfos").and_then(Value::as_array).context("no targets")?;
        let is_page = |target: &&Value| target.get("type").and_then(Value::as_str) == Some("page");
        let target = targets.iter().find(is_page).and_then(|target| target.get("targetId"));
        let target = target.context("the browser has no page")?;
        let attached = pipe.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }))?;
        let session = attached.get("sessionId").and_then(Value::as_str).context("no session")?;
        pipe.talk_to(session.to_owned());
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            pipe.call(&format!("{domain}.enable"), &json!({}))?;
        }
        pipe.call("Emulation.setFocusEmulationEnabled", &json!({ "enabled": true }))?;
        Ok(Self { pipe })
    }

    /// Tells the browser something that needs no answer.
    pub(crate) fn tell(&mut self, method: &str, parameters: &Value) -> Result<()> {
        self.pipe.send(method, parameters).map(drop)
    }

    /// Goes to an address, and forgets what was said before.
    ///
    /// # Errors
    ///
    /// Nothing answers there.
    pub fn open(&mut self, url: &str) -> Result<()> {
        self.pipe.forget();
        let gone = self.pipe.call("Page.navigate", &json!({ "url": url }))?;
        if let Some(error) = gone.get("errorText") {
            bail!("{url}: {error}");
        }
        self.until("the page to be read", "document.readyState === 'complete'")
    }

    /// What an expression is there.
    ///
    /// # Errors
    ///
    /// It throws.
    pub fn eval(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let answer = self.pipe.call("Runtime.evaluate", &asked)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer.pointer("/result/value").cloned().unwrap_or_default())
    }

    /// The text that an expression is there.
    ///
    /// # Errors
    ///
    /// It throws, or is no text.
    pub fn text(&mut self, expression: &str) -> Result<String> {
        let value = self.eval(expression)?;
        Ok(value.as_str().with_context(|| format!("{expression} is no text: {value}"))?.to_owned())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    ///
    /// It does not become so within a minute; the page's text is in the error.
    pub fn until(&mut self, what: &str, expression: &str) -> Result<()> {
        let come = eventually_ok(what, LIMIT, || {
            let value = self.eval(expression)?;
            ensure!(value == true, "{expression} is {value}");
            Ok(())
        });
        come.with_context(|| self.text("document.body.innerText").unwrap_or_default())
    }

    /// Presses a key and lets it go.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn press(&mut self, key: Key) -> Result<()> {
        let (name, code, number, text) = key.words();
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({ "type": kind, "key": name, "code": code, "windowsVirtualKeyCode": number, "text": text });
            self.pipe.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Types a text into what has the focus.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.pipe.call("Input.insertText", &json!({ "text": text })).map(drop)
    }

    /// Sets media features, such as `prefers-color-scheme`.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn prefer(&mut self, features: &[(&str, &str)]) -> Result<()> {
        let features: Vec<Value> =
            features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.pipe.call("Emulation.setEmulatedMedia", &json!({ "features": features })).map(drop)
    }

    /// Sets the size of the window.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn size(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.pipe.call("Emulation.setDeviceMetricsOverride", &size).map(drop)
    }

    /// Puts a picture of the whole page into a file, as WebP.
    ///
    /// # Errors
    ///
    /// It cannot be made or written.
    pub fn picture(&mut self, file: &Path) -> Result<()> {
        let asked = json!({ "format": "webp", "quality": 50, "captureBeyondViewport": true });
        let made = self.pipe.call("Page.captureScreenshot", &asked)?;
        let data = made.get("data").and_then(Value::as_str).context("no picture")?;
        std::fs::write(file, STANDARD.decode(data)?).with_context(|| file.display().to_string())
    }

    /// What screen readers are told of the page, but for what they are not to be told.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn spoken(&mut self) -> Result<Vec<Node>> {
        let tree = self.pipe.call("Accessibility.getFullAXTree", &json!({}))?;
        let nodes = tree.get("nodes").and_then(Value::as_array).context("no tree")?;
        let text = |node: &Value, key: &str| {
            node.pointer(&format!("/{key}/value")).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let told = nodes.iter().filter(|node| node.get("ignored") != Some(&Value::Bool(true)));
        Ok(told.map(|node| Node { role: text(node, "role"), name: text(node, "name") }).collect())
    }

    /// Everything that went wrong since the page was opened: what the console has as errors or warnings, what was thrown, and what the
    /// page's policy forbade.
    pub fn problems(&mut self) -> Vec<String> {
        let is_bad = |value: Option<&Value>| {
            matches!(value.and_then(Value::as_str), Some("error" | "warning" | "assert"))
        };
        let mut found = Vec::new();
        for event in self.pipe.events("Log.entryAdded") {
            if is_bad(event.pointer("/entry/level")) {
                found.push(event.to_string());
            }
        }
        for event in self.pipe.events("Runtime.consoleAPICalled") {
            if is_bad(event.get("type")) {
                found.push(event.to_string());
            }
        }
        found.extend(self.pipe.events("Runtime.exceptionThrown").iter().map(ToString::to_string));
        found
    }

    /// The addresses that were asked for since the page was opened.
    pub fn requests(&mut self) -> Vec<String> {
        let events = self.pipe.events("Network.requestWillBeSent");
        let url = |event: &&Value| event.pointer("/request/url").and_then(Value::as_str).map(str::to_owned);
        events.iter().filter_map(url).collect()
    }
}
