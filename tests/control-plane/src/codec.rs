//! How messages lie in a gRPC stream of this server: what is received is decoded, what is sent is encoded already.
//!
//! That lets a script send bytes that no encoder would make, and a large answer be put together once.

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Receives `D`, sends bytes.
#[derive(Debug)]
pub(crate) struct Sent<D>(PhantomData<D>);

impl<D> Default for Sent<D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<D: prost::Message + Default + Send + 'static> Codec for Sent<D> {
    type Encode = Bytes;
    type Decode = D;
    type Encoder = Raw;
    type Decoder = Read<D>;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Read<D> {
        Read(PhantomData)
    }
}

/// Puts bytes on the wire as they are.
#[derive(Debug)]
pub(crate) struct Raw;

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

/// Decodes what a client sent.
#[derive(Debug)]
pub(crate) struct Read<D>(PhantomData<D>);

impl<D: prost::Message + Default> Decoder for Read<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        D::decode(message)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("a request that does not decode: {error}")))
    }
}
