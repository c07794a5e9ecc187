//! What is to be written into one pod's annotation next, if anything: the difference between what it may say and what it says.
//!
//! Pure. Invariant: at most one write is under way, so that the last word is the last one that was asked for; and after a write of which
//! nobody knows whether it was done, it is taken for possibly done.

use crate::enrollment::Mark;

/// A value of the annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// `enabled`: captured, and that was proven.
    Enabled,
    /// `pending`: to be captured.
    Pending,
    /// What somebody else wrote.
    Other,
}

impl Word {
    /// Reads a value.
    pub(crate) fn read(text: &str) -> Self {
        match text {
            "enabled" => Self::Enabled,
            "pending" => Self::Pending,
            _ => Self::Other,
        }
    }

    /// As it is written; none of what is not written by us.
    pub(crate) fn text(self) -> Option<&'static str> {
        match self {
            Self::Enabled => Some("enabled"),
            Self::Pending => Some("pending"),
            Self::Other => None,
        }
    }
}

/// The annotation of one pod.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    mark: Mark,
    /// What it says, as far as is known; none if it is not there.
    says: Option<Word>,
    /// Whether a write has failed after which it may say something else.
    is_unsure: bool,
    /// The version of the object that is known; older news count for nothing.
    version: u64,
    in_flight: Option<Option<Word>>,
}

impl Plan {
    /// One that says this, in this version.
    pub(crate) fn new(says: Option<Word>, version: u64) -> Self {
        Self { mark: Mark::Leave, says, is_unsure: false, version, in_flight: None }
    }

    /// What it may say from now on.
    pub(crate) fn set(&mut self, mark: Mark) {
        self.mark = mark;
    }

    /// What it may say.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// What a watch says that it says.
    pub(crate) fn observe(&mut self, says: Option<Word>, version: u64) {
        if version <= self.version && version != 0 {
            return;
        }
        self.version = version;
        self.says = says;
    }

    /// Whether what it knows is of this version.
    #[cfg(test)]
    pub(crate) fn knows(&self, version: u64) -> bool {
        self.version == version && !self.is_unsure
    }

    /// Whether it says nothing that it may not, and nothing is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.due().is_none()
    }

    /// Whether a write is under way.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Begins the write that is due; `Some(None)` removes the annotation.
    pub(crate) fn begin(&mut self) -> Option<Option<Word>> {
        if self.in_flight.is_some() {
            return None;
        }
        self.in_flight = self.due();
        self.in_flight
    }

    /// The write is done, and made this version of the object.
    pub(crate) fn written(&mut self, version: u64) {
        if let Some(word) = self.in_flight.take() {
            self.says = word;
            self.is_unsure = false;
            self.version = self.version.max(version);
        }
    }

    /// The write has failed, or its answer was lost.
    pub(crate) fn failed(&mut self) {
        if self.in_flight.take().is_some() {
            self.is_unsure = true;
        }
    }

    fn due(&self) -> Option<Option<Word>> {
        let is_enabled = self.says == Some(Word::Enabled) || self.is_unsure;
        match self.mark {
            Mark::Enabled => self.unless(Some(Word::Enabled)),
            Mark::Pending => self.unless(Some(Word::Pending)),
            Mark::Absent => self.unless(None),
            Mark::NotEnabled if is_enabled => Some(Some(Word::Pending)),
            Mark::NotEnabled | Mark::Leave => None,
        }
    }

    fn unless(&self, word: Option<Word>) -> Option<Option<Word>> {
        (self.says != word || self.is_unsure).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_is_written() {
        let table = [
            (Mark::Enabled, None, Some(Some(Word::Enabled))),
            (Mark::Enabled, Some(Word::Enabled), None),
            (Mark::Enabled, Some(Word::Pending), Some(Some(Word::Enabled))),
            (Mark::Pending, None, Some(Some(Word::Pending))),
            (Mark::NotEnabled, None, None),
            (Mark::NotEnabled, Some(Word::Pending), None),
            (Mark::NotEnabled, Some(Word::Enabled), Some(Some(Word::Pending))),
            (Mark::Absent, None, None),
            (Mark::Absent, Some(Word::Other), Some(None)),
            (Mark::Leave, Some(Word::Enabled), None),
        ];
        for (mark, says, expected) in table {
            let mut plan = Plan::new(says, 1);
            plan.set(mark);
            assert_eq!(plan.begin(), expected, "{mark:?} of {says:?}");
        }
    }

    #[test]
    fn the_last_word_wins_and_one_write_is_under_way() {
        let mut plan = Plan::new(None, 1);
        plan.set(Mark::Enabled);
        assert_eq!(plan.begin(), Some(Some(Word::Enabled)));
        plan.set(Mark::Pending);
        plan.set(Mark::Absent);
        assert_eq!(plan.begin(), None);
        assert!(!plan.is_settled());
        plan.written(2);
        assert_eq!(plan.begin(), Some(None));
        plan.written(3);
        assert!(plan.is_settled() && plan.begin().is_none());
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_taken_for_done() {
        let mut plan = Plan::new(None, 1);
        plan.set(Mark::Enabled);
        plan.begin();
        plan.failed();
        plan.set(Mark::Absent);
        assert_eq!(plan.begin(), Some(None));
    }

    #[test]
    fn news_from_before_the_last_write_count_for_nothing() {
        let mut plan = Plan::new(None, 5);
        plan.set(Mark::Enabled);
        plan.begin();
        plan.written(9);
        plan.observe(None, 7);
        assert!(plan.is_settled());
        plan.observe(None, 12);
        assert_eq!(plan.begin(), Some(Some(Word::Enabled)));
    }
}
