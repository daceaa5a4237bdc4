//! A small HTTP and WebSocket client for commands and key sets.
//!
//! One request a connection, no redirects followed, every call bounded in bytes and time.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

/// What one call may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The answer's body.
    pub bytes: usize,
    /// From connecting to the last byte; for a WebSocket up to the end of the handshake.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { bytes: 64 << 20, time: Duration::from_secs(60) }
    }
}

/// A server to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `http` or `https`, host and port.
    Web {
        /// Whether by `https`.
        tls: bool,
        /// A name or an address.
        host: String,
        /// Always told, also where it is the scheme's own.
        port: u16,
    },
    /// The owner's socket of a data directory.
    Unix(PathBuf),
}

/// What came back, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// All of them.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why nothing came back, told for a person; names the server, never a token.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

/// Why there is no WebSocket.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoSocket {
    /// Nothing came back.
    #[error("{0}")]
    Failure(#[from] Failure),
    /// The server answered with this status and body.
    #[error("the server answered {0} to the handshake: {1}")]
    Refused(u16, String),
}

/// A byte stream to a server.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A WebSocket over whatever leads to the server.
pub type Socket = WebSocketStream<Box<dyn Io>>;

impl Place {
    /// `http://host:port/path?query` → the server, and path and query.
    pub fn parse(url: &str) -> Result<(Place, String), Failure> {
        let wrong = || Failure(format!("'{url}' is no URL; use e.g. http://127.0.0.1:8000"));
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(Failure(String::from("a URL with a user name is not supported")));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok((Place::Web { tls, host, port }, path.to_owned()))
    }

    /// What `Host` says: without the port where it is the scheme's own.
    pub fn host_header(&self) -> String {
        match self {
            Place::Web { tls, host, port } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                match (tls, port) {
                    (false, 80) | (true, 443) => host,
                    _ => format!("{host}:{port}"),
                }
            }
            Place::Unix(_) => "localhost".into(),
        }
    }

    fn failure(&self, why: impl std::fmt::Display) -> Failure {
        match self {
            Place::Web { host, port, .. } => Failure(format!("{host}:{port}: {why}")),
            Place::Unix(path) => Failure(format!("{}: {why}", path.display())),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Io>, Failure> {
        let fail = |error| self.failure(error);
        match self {
            Place::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(fail)?)),
            Place::Web { tls, host, port } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(fail)?;
                tcp.set_nodelay(true).map_err(fail)?;
                if !tls {
                    return Ok(Box::new(tcp));
                }
                let name = ServerName::try_from(host.clone()).map_err(|e| self.failure(e))?;
                let config = TLS.clone().map_err(|error| self.failure(error))?;
                let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(fail)?;
                Ok(Box::new(tls))
            }
        }
    }

    /// One request; `path` with its query.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, Failure> {
        let exchange = self.exchange(method, path, headers, body, bounds.bytes);
        tokio::time::timeout(bounds.time, exchange)
            .await
            .map_err(|_| self.failure(format!("no answer within {:?}", bounds.time)))?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        most: usize,
    ) -> Result<Answer, Failure> {
        let io = TokioIo::new(self.connect().await?);
        let fail = |error: hyper::Error| self.failure(error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(fail)?;
        let running = tokio::spawn(connection);
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.host_header())
            .header(header::CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.failure(error))?;
        let answered = async {
            let (head, body) = sender.send_request(request).await.map_err(fail)?.into_parts();
            let body = Limited::new(body, most).collect().await.map_err(|e| self.failure(e))?;
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        let answer = answered.await;
        running.abort();
        answer
    }

    /// A WebSocket at `path` with its query.
    pub async fn websocket(
        &self,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        bounds: Bounds,
    ) -> Result<Socket, NoSocket> {
        let shake = async {
            let mut request = hyper::Request::builder()
                .uri(format!("ws://{}{path}", self.host_header()))
                .header(header::HOST, self.host_header())
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_VERSION, "13")
                .header(header::SEC_WEBSOCKET_KEY, tungstenite::handshake::client::generate_key());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(()).map_err(|error| self.failure(error))?;
            let config = tungstenite::protocol::WebSocketConfig::default()
                .max_message_size(Some(bounds.bytes))
                .max_frame_size(Some(bounds.bytes))
                .read_buffer_size(16 << 10);
            let io = self.connect().await?;
            match tokio_tungstenite::client_async_with_config(request, io, Some(config)).await {
                Ok((socket, _)) => Ok(socket),
                Err(tungstenite::Error::Http(answer)) => {
                    let body = answer.body().as_deref().unwrap_or_default();
                    let text = String::from_utf8_lossy(body).into_owned();
                    Err(NoSocket::Refused(answer.status().as_u16(), text))
                }
                Err(error) => Err(self.failure(error).into()),
            }
        };
        tokio::time::timeout(bounds.time, shake)
            .await
            .map_err(|_| self.failure(format!("no answer within {:?}", bounds.time)))?
    }
}

/// The body behind `url`; anything but 200 is a failure.
pub async fn get(url: &str, bounds: Bounds) -> Result<Bytes, Failure> {
    let (place, path) = Place::parse(url)?;
    let accept = [(header::ACCEPT, HeaderValue::from_static("application/json"))];
    let answer = place.request(Method::GET, &path, &accept, Bytes::new(), bounds).await?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(place.failure(format!("answered {status}"))),
    }
}

/// Trusts the public roots that are built in.
static TLS: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
});

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that says this to whoever asks, and then nothing.
    async fn says(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        });
        format!("http://{address}/keys")
    }

    #[tokio::test]
    async fn answers_are_bounded() {
        let bounds = Bounds { bytes: 10, time: Duration::from_millis(500) };
        let good = says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        assert_eq!(get(&good, bounds).await.expect("an answer"), "{}");
        for (answer, told) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n12345678901", "limit"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n",
                "limit",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", "within 500ms"),
            ("", "within 500ms"),
            ("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", "302"),
            ("what\r\n\r\n", "127.0.0.1"),
        ] {
            let error = get(&says(answer).await, bounds).await.expect_err(answer).to_string();
            assert!(error.contains(told), "{answer:?}: {error}");
        }
        let error = get("http://127.0.0.1:1/", bounds).await.expect_err("nobody").to_string();
        assert!(error.starts_with("127.0.0.1:1: "), "{error}");
    }

    #[test]
    fn urls() {
        let web = |tls, host: &str, port| Place::Web { tls, host: host.into(), port };
        let parse = |url: &str| Place::parse(url).map_err(|error| error.to_string());
        assert_eq!(parse("http://a:81/b?c"), Ok((web(false, "a", 81), "/b?c".into())));
        assert_eq!(parse("https://a"), Ok((web(true, "a", 443), "/".into())));
        assert_eq!(parse("http://[::1]:8000"), Ok((web(false, "::1", 8000), "/".into())));
        assert_eq!(web(false, "::1", 8000).host_header(), "[::1]:8000");
        for url in ["", "a", "ftp://a", "http://", "http://u:p@a"] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
