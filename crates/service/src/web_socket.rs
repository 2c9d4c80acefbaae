//! WebSockets (RFC 6455) between services: messages in both directions over one connection, without a head for each. Every
//! message is a text of one frame.

use std::future::ready;
use std::io;

use actix_http::ws::{Codec, Frame, Message, ProtocolError, handshake};
use actix_web::body::{BodyStream, MessageBody};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::BytesMut;
use futures_util::stream::once;
use futures_util::{Sink, SinkExt, Stream, StreamExt, TryStreamExt};
use reqwest::{RequestBuilder, StatusCode, Upgraded, header};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedRead};
use tokio_util::io::StreamReader;

use crate::ApiError;

/// The nonce of the handshake. It keeps a cache from answering, and there is none between services.
const KEY: &str = "ZGl2dnkgbWVzc2FnZXMgLg==";

/// The longest head of a frame, in bytes: its type, its length and its mask.
const MAX_FRAME_HEAD_BYTES: usize = 14;

/// The peer has opened no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The request failed.
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    /// The peer answered by HTTP.
    #[error("the answer is {0}")]
    Status(StatusCode),
}

/// No more texts come, although the peer has not closed the WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended(#[source] io::Error),
    /// The peer breaks the protocol, or sends more than the bound.
    #[error(transparent)]
    Invalid(ProtocolError),
    /// The peer sends another frame than a text.
    #[error("a message is no text of one frame")]
    NoText,
}

/// Opens a WebSocket by a `GET` request; received texts have at most `max_bytes`.
///
/// # Errors
/// The peer opens none.
pub async fn open(
    request: RequestBuilder,
    max_bytes: usize,
) -> Result<
    (impl Sink<String, Error = ProtocolError> + Unpin, impl Stream<Item = Result<Bytes, ReceiveError>> + Unpin),
    OpenError,
> {
    let request = request
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, KEY);
    let response = request.send().await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(OpenError::Status(response.status()));
    }
    let codec = BoundedCodec::new(Codec::new().client_mode(), max_bytes);
    let socket: Framed<Upgraded, BoundedCodec> = Framed::new(response.upgrade().await?, codec);
    let (sink, source) = socket.split();
    let sink = sink.with(|text: String| ready(Ok::<_, ProtocolError>(Message::Text(text.into()))));
    Ok((sink, texts(source)))
}

/// Accepts the WebSocket that a request opens, and sends `messages` over it. The connection ends with them.
///
/// # Errors
/// The request opens no WebSocket.
pub fn accept(request: &HttpRequest, messages: impl Stream<Item = String> + 'static) -> Result<HttpResponse, ApiError> {
    let invalid = |error: actix_http::ws::HandshakeError| ApiError::InvalidParameter {
        name: "Upgrade".to_owned(),
        message: format!("must open a WebSocket: {error}"),
    };
    let mut response = handshake(request.head()).map_err(invalid)?;
    let messages = messages.map(|text| Message::Text(text.into()));
    // The peer that reads it closes the connection; without it actix-web would wait for the peer first.
    let messages = messages.chain(once(ready(Message::Close(None))));
    let mut codec = Codec::new();
    let frames = messages.map(move |message| {
        let mut frame = BytesMut::new();
        codec.encode(message, &mut frame)?;
        Ok::<_, ProtocolError>(frame.freeze())
    });
    let body = BodyStream::new(frames).boxed();
    let response = response.message_body(body).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(response.into())
}

/// The texts that a request for a WebSocket receives, each of at most `max_bytes`. They end when the peer closes the WebSocket.
pub fn received(body: Payload, max_bytes: usize) -> impl Stream<Item = Result<Bytes, ReceiveError>> + Unpin {
    let bytes = StreamReader::new(body.map_err(io::Error::other));
    texts(FramedRead::new(bytes, BoundedCodec::new(Codec::new(), max_bytes)))
}

/// The texts of frames, up to a close frame; an end without one is an error.
fn texts(
    frames: impl Stream<Item = Result<Frame, ProtocolError>> + Unpin,
) -> impl Stream<Item = Result<Bytes, ReceiveError>> + Unpin {
    let end = Err(ProtocolError::Io(io::ErrorKind::UnexpectedEof.into()));
    let texts = frames.chain(once(ready(end))).map(|frame| match frame {
        Ok(Frame::Text(text)) => Some(Ok(text)),
        Ok(Frame::Close(_)) => None,
        Ok(_) => Some(Err(ReceiveError::NoText)),
        // actix-http reports a wrong frame head so, too.
        Err(ProtocolError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
            Some(Err(ReceiveError::Ended(error)))
        }
        Err(error) => Some(Err(ReceiveError::Invalid(error))),
    });
    texts.take_while(|text| ready(text.is_some())).filter_map(ready)
}

/// A codec that refuses a frame above its bound once more bytes have come than the longest frame has: the codec of actix-http
/// collects the whole frame before.
struct BoundedCodec {
    codec: Codec,
    max_bytes: usize,
}

impl BoundedCodec {
    fn new(codec: Codec, max_bytes: usize) -> Self {
        Self { codec: codec.max_size(max_bytes), max_bytes }
    }
}

impl Decoder for BoundedCodec {
    type Item = Frame;
    type Error = ProtocolError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        let frame = self.codec.decode(bytes)?;
        if frame.is_none() && bytes.len() > self.max_bytes + MAX_FRAME_HEAD_BYTES {
            return Err(ProtocolError::Overflow);
        }
        Ok(frame)
    }
}

impl Encoder<Message> for BoundedCodec {
    type Error = ProtocolError;

    fn encode(&mut self, message: Message, bytes: &mut BytesMut) -> Result<(), ProtocolError> {
        self.codec.encode(message, bytes)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::iter;

    use super::*;

    const MAX_BYTES: usize = 1000;

    fn codec() -> BoundedCodec {
        BoundedCodec::new(Codec::new().client_mode(), MAX_BYTES)
    }

    #[test]
    fn the_longest_text_is_received_and_a_longer_frame_is_refused_before_it_is_there() {
        let mut bytes = BytesMut::new();
        Codec::new().encode(Message::Text("x".repeat(MAX_BYTES).into()), &mut bytes).expect("a frame");
        let last = bytes.split_off(bytes.len() - 1);
        assert_eq!(codec().decode(&mut bytes).expect("a part of a frame"), None);
        bytes.unsplit(last);
        let frame = codec().decode(&mut bytes).expect("a frame");
        assert_eq!(frame, Some(Frame::Text("x".repeat(MAX_BYTES).into())));

        // The head of a text of 2^40 bytes, and some of them.
        let mut bytes = BytesMut::from(&[0x81_u8, 127, 0, 0, 1, 0, 0, 0, 0, 0][..]);
        assert_eq!(codec().decode(&mut bytes).expect("a part of a frame"), None);
        bytes.resize(MAX_BYTES + MAX_FRAME_HEAD_BYTES + 1, b'x');
        assert!(matches!(codec().decode(&mut bytes), Err(ProtocolError::Overflow)));
    }

    #[actix_web::test]
    async fn texts_end_with_a_close_frame_and_fail_at_any_other_end() {
        let after_a_text = async |next: Vec<Result<Frame, ProtocolError>>| {
            let text = Ok(Frame::Text(Bytes::from_static(b"text")));
            let mut texts = texts(iter([text].into_iter().chain(next)));
            assert_eq!(texts.next().await.expect("a text").expect("no error"), "text");
            texts.next().await.transpose()
        };
        assert_eq!(after_a_text(vec![Ok(Frame::Close(None))]).await.expect("no error"), None);
        assert!(matches!(after_a_text(Vec::new()).await, Err(ReceiveError::Ended(_))));
        let reset = ProtocolError::Io(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(after_a_text(vec![Err(reset)]).await, Err(ReceiveError::Ended(_))));
        let invalid = ProtocolError::Io(io::ErrorKind::InvalidData.into());
        assert!(matches!(after_a_text(vec![Err(invalid)]).await, Err(ReceiveError::Invalid(_))));
        assert!(matches!(after_a_text(vec![Err(ProtocolError::Overflow)]).await, Err(ReceiveError::Invalid(_))));
        let ping = Frame::Ping(Bytes::new());
        assert!(matches!(after_a_text(vec![Ok(ping)]).await, Err(ReceiveError::NoText)));
    }
}
