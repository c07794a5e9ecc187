//! Which of the workers: for whom it is, and its number among those.
//!
//! Beside each worker for whatever comes there is one for crowds. A thread that has used its CPU up has to wait for it, and with it everything
//! that it serves: a crowd may have that of its own.
//!
//! Invariant: there are as many for crowds as for the rest.

/// What a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Whatever comes.
    All,
    /// What comes in crowds.
    Crowds,
}

/// One worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) duty: Duty,
    pub(crate) number: usize,
}

impl Seat {
    /// The one of this number that has this duty.
    pub(crate) const fn with(self, duty: Duty) -> Self {
        Self { duty, ..self }
    }
}

/// Something for each worker.
#[derive(Debug)]
pub(crate) struct Seats<T> {
    all: Box<[T]>,
    crowds: Box<[T]>,
}

impl<T> Seats<T> {
    /// For so many of each duty.
    pub(crate) fn try_new<E>(count: usize, mut make: impl FnMut(Seat) -> Result<T, E>) -> Result<Self, E> {
        let mut of = |duty| (0..count).map(|number| make(Seat { duty, number })).collect::<Result<_, E>>();
        Ok(Self { all: of(Duty::All)?, crowds: of(Duty::Crowds)? })
    }

    /// What is made of each of these.
    pub(crate) fn map<U>(&self, mut make: impl FnMut(&T) -> U) -> Seats<U> {
        let mut of = |seats: &[T]| seats.iter().map(&mut make).collect();
        Seats { all: of(&self.all), crowds: of(&self.crowds) }
    }

    pub(crate) fn get(&self, seat: Seat) -> Option<&T> {
        self.of(seat.duty).get(seat.number)
    }

    /// All of one duty.
    pub(crate) const fn of(&self, duty: Duty) -> &[T] {
        match duty {
            Duty::All => &self.all,
            Duty::Crowds => &self.crowds,
        }
    }

    /// All of them, those for crowds last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter().chain(&self.crowds)
    }
}
