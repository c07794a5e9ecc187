//! What a setting is: its names, its default, what it takes and what it means, all in one place.
//!
//! The command line, the reading of files and variables, `culvert config` and the check of docs/configuration.md are made
//! from these. Invariant: a default is a good value; a test holds that of each.

/// What a setting takes.
pub(crate) struct Kind<T> {
    /// What a value looks like, for the command line's help.
    pub(crate) value: &'static str,
    /// What is allowed, for whoever wrote something else.
    pub(crate) allowed: &'static str,
    /// Reads a value, or says what is wrong with it.
    pub(crate) parse: fn(&str) -> Result<T, String>,
}

impl<T> Clone for Kind<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Kind<T> {}

/// A setting without the type of its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Face {
    /// The flag, without its dashes; it names the setting everywhere in the code.
    pub(crate) flag: &'static str,
    /// The environment variable.
    pub(crate) variable: &'static str,
    /// Another variable that says the same; where both are set this one counts.
    pub(crate) other_variable: Option<&'static str>,
    /// What it is if nobody says anything.
    pub(crate) default: &'static str,
    /// What it is instead in a pod of a cluster that is not given a mesh file.
    pub(crate) in_cluster: Option<&'static str>,
    /// What it means.
    pub(crate) about: &'static str,
    /// What a value looks like.
    pub(crate) value: &'static str,
    /// What is allowed.
    pub(crate) allowed: &'static str,
    /// Whether this value must never be shown.
    pub(crate) is_secret: fn(&str) -> bool,
}

/// A setting.
pub(crate) struct Setting<T> {
    face: Face,
    parse: fn(&str) -> Result<T, String>,
}

/// A setting of any type.
pub(crate) trait Known: Sync {
    /// All about it but its type.
    fn face(&self) -> &Face;
    /// What is wrong with a value.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests try values of settings of any type"))]
    fn check(&self, text: &str) -> Result<(), String>;
}

impl<T> Setting<T> {
    /// A setting `--flag`, `VARIABLE`, with its default.
    pub(crate) const fn new(
        names: (&'static str, &'static str),
        default: &'static str,
        kind: Kind<T>,
        about: &'static str,
    ) -> Self {
        let (flag, variable) = names;
        let face = Face {
            flag,
            variable,
            other_variable: None,
            default,
            in_cluster: None,
            about,
            value: kind.value,
            allowed: kind.allowed,
            is_secret: never,
        };
        Self { face, parse: kind.parse }
    }

    /// With another default in a cluster.
    pub(crate) const fn in_cluster(self, default: &'static str) -> Self {
        Self { face: Face { in_cluster: Some(default), ..self.face }, parse: self.parse }
    }

    /// With another variable that says the same, and counts where both are set.
    pub(crate) const fn or(self, variable: &'static str) -> Self {
        Self { face: Face { other_variable: Some(variable), ..self.face }, parse: self.parse }
    }

    /// With values that may not be shown.
    pub(crate) const fn secret(self, is_secret: fn(&str) -> bool) -> Self {
        Self { face: Face { is_secret, ..self.face }, parse: self.parse }
    }

    /// Reads a value, or says what is wrong with it.
    pub(crate) fn parse(&self, text: &str) -> Result<T, String> {
        (self.parse)(text)
    }
}

impl<T> Known for Setting<T> {
    fn face(&self) -> &Face {
        &self.face
    }

    fn check(&self, text: &str) -> Result<(), String> {
        self.parse(text).map(drop)
    }
}

impl Face {
    /// The key in the configuration file: the flag in camel case.
    pub(crate) fn key(&self) -> String {
        camel(self.flag)
    }

    /// Each variable that says it, with the setting itself.
    pub(crate) fn by_variable(&'static self) -> impl Iterator<Item = (&'static str, &'static Self)> {
        [Some(self.variable), self.other_variable].into_iter().flatten().map(move |name| (name, self))
    }

    /// Whether the flag alone, without a value, means something: that it is to be so.
    pub(crate) fn is_switch(&self) -> bool {
        self.value == super::kinds::SWITCH.value
    }

    /// Whether it takes several values, with commas between.
    pub(crate) fn is_list(&self) -> bool {
        self.value.ends_with(",…")
    }

    /// The value as it may be shown; none if it may not.
    pub(crate) fn shown<'a>(&self, text: &'a str) -> Option<&'a str> {
        (!(self.is_secret)(text)).then_some(text)
    }
}

/// Settings that share a prefix, one for each name that somebody gives: headers, metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// The flag, without its dashes; it takes NAME=VALUE and may be repeated.
    pub(crate) flag: &'static str,
    /// What the names of its variables begin with.
    pub(crate) prefix: &'static str,
    /// The key in the configuration file, of a mapping.
    pub(crate) key: &'static str,
    /// What it means.
    pub(crate) about: &'static str,
    /// What is allowed.
    pub(crate) allowed: &'static str,
    /// What is wrong with a name and its value.
    pub(crate) check: fn(&str, &str) -> Result<(), String>,
    /// Whether the values must never be shown.
    pub(crate) is_secret: bool,
    /// Whether names that differ in case alone are the same.
    pub(crate) any_case: bool,
}

impl Family {
    /// The name under which one of them is known.
    pub(crate) fn canonical(&self, name: &str) -> String {
        if self.any_case { name.to_ascii_lowercase() } else { name.to_owned() }
    }
}

/// The settings of one noun.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    /// What they are about.
    pub(crate) title: &'static str,
    /// In the order in which they are shown.
    pub(crate) settings: &'static [&'static dyn Known],
    /// And those with names of their own.
    pub(crate) families: &'static [Family],
}

fn never(_: &str) -> bool {
    false
}

/// `drain-limit` as `drainLimit`.
fn camel(flag: &str) -> String {
    let mut words = flag.split('-');
    let mut key = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        key.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        key.push_str(letters.as_str());
    }
    key
}
