//! Questions and answers, as tables; and what packets become.

mod packets;
mod recorded;
mod table;
mod world;
