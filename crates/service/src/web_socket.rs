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
use tokio_util::codec::{Encoder, Framed, FramedRead};
use tokio_util::io::StreamReader;

use crate::ApiError;

/// The nonce of the handshake. It keeps a cache from answering, and there is none between services.
const KEY: &str = "ZGl2dnkgbWVzc2FnZXMgLg==";

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

/// Opens a WebSocket by a `GET` request; received texts have at most `max_bytes`.
///
/// # Errors
/// The peer opens none.
pub async fn open(
    request: RequestBuilder,
    max_bytes: usize,
) -> Result<
    (impl Sink<String, Error = ProtocolError> + Unpin, impl Stream<Item = Result<Bytes, ProtocolError>> + Unpin),
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
    let codec = Codec::new().client_mode().max_size(max_bytes);
    let socket: Framed<Upgraded, Codec> = Framed::new(response.upgrade().await?, codec);
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

/// The texts that a request for a WebSocket receives, each of at most `max_bytes`.
pub fn received(body: Payload, max_bytes: usize) -> impl Stream<Item = Result<Bytes, ProtocolError>> + Unpin {
    let bytes = StreamReader::new(body.map_err(io::Error::other));
    texts(FramedRead::new(bytes, Codec::new().max_size(max_bytes)))
}

/// The texts of frames, up to the first frame of another kind.
fn texts(
    frames: impl Stream<Item = Result<Frame, ProtocolError>> + Unpin,
) -> impl Stream<Item = Result<Bytes, ProtocolError>> + Unpin {
    let texts = frames.map(|frame| match frame {
        Ok(Frame::Text(text)) => Some(Ok(text)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    texts.take_while(|text| ready(text.is_some())).filter_map(ready)
}
