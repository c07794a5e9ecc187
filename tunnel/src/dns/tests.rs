//! Questions and answers, as tables; and what packets become.

mod packets;
mod table;
mod world;
