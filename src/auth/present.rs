//! Where credentials come from in a request.
//!
//! `Authorization`, `X-Auth-Token`, the WebSocket subprotocol, `access_token` in the query, the
//! cookie `token`: the first that is present decides, and if it is no good the request is refused
//! even when another would be. Only a request with none at all comes from a guest.

use std::collections::HashSet;
use std::fmt;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_PROTOCOL};

/// The subprotocol that announces a token, and the one that is echoed.
pub const SUBPROTOCOL: &str = "Authorization";

const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The credentials of one request.
#[derive(Clone, PartialEq, Eq)]
pub enum Presented {
    /// None at all: a guest.
    Nothing,
    Token(String),
    /// Something that can be no token: 401.
    Bad,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Presented::Nothing => "Nothing",
            Presented::Token(_) => "Token(…)",
            Presented::Bad => "Bad",
        })
    }
}

/// What is asked for decides whether a cookie needs an origin: browsers send cookies along with
/// other sites' requests too, and only for plain reads does the browser itself keep the answer
/// from those sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Read,
    Write,
    /// An event stream: a GET for which browsers send no `Origin` to the page's own server.
    Stream,
    WebSocket,
}

/// Origins, besides the server's own, whose pages may use a cookie.
#[derive(Clone, Debug, Default)]
pub struct Origins(HashSet<String>);

impl Origins {
    /// `https://app.example.com`, with a port where it is not the scheme's own. The error names
    /// the entry at fault.
    pub fn new<S: AsRef<str>>(list: impl IntoIterator<Item = S>) -> Result<Origins, String> {
        let one = |text: S| {
            let text = text.as_ref().trim();
            parse(text)
                .map(|origin| format!("{}://{}", origin.scheme, origin.authority))
                .ok_or_else(|| {
                    format!(
                        "'{text}' is no origin; write scheme, host and port only, as in \
                         https://app.example.com or http://localhost:5173"
                    )
                })
        };
        list.into_iter().map(one).collect::<Result<_, _>>().map(Origins)
    }

    /// Whether a page of the request's `Origin` may use a cookie here.
    pub fn trusts(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else {
            return false;
        };
        let Some(origin) = origin.to_str().ok().and_then(parse) else {
            return false;
        };
        let own = headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(|host| {
            // Behind a proxy that ends TLS the scheme is not known here.
            authority(host, origin.scheme).is_some_and(|host| host == origin.authority)
        });
        own || self.0.contains(&format!("{}://{}", origin.scheme, origin.authority))
    }
}

struct Origin<'a> {
    scheme: &'a str,
    /// Lower-case host, and the port unless it is the scheme's own.
    authority: String,
}

fn parse(text: &str) -> Option<Origin<'_>> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = ["http", "https"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
    Some(Origin { scheme, authority: authority(rest, scheme)? })
}

fn authority(text: &str, scheme: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let well = !lower.is_empty()
        && lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    let own_port = if scheme == "https" { ":443" } else { ":80" };
    // `[::80]` ends with a bracket, so nothing of an IPv6 address is taken for a port.
    well.then(|| lower.strip_suffix(own_port).unwrap_or(&lower).to_owned())
}

impl Presented {
    /// Finds the credentials. `query` is the raw query string, without `?`.
    pub fn from_headers(
        headers: &HeaderMap,
        query: Option<&str>,
        purpose: Purpose,
        origins: &Origins,
    ) -> Presented {
        if headers.contains_key(AUTHORIZATION) {
            return single(headers, &AUTHORIZATION).and_then(bearer).into();
        }
        if headers.contains_key(&X_AUTH_TOKEN) {
            return single(headers, &X_AUTH_TOKEN).and_then(plausible).into();
        }
        if purpose == Purpose::WebSocket {
            let offered = subprotocols(headers);
            if offered.contains(&SUBPROTOCOL) {
                let mut others = offered.into_iter().filter(|offer| *offer != SUBPROTOCOL);
                let token = others.next().filter(|_| others.next().is_none());
                return token.and_then(plausible).into();
            }
        }
        if let Some(token) = query.and_then(|query| parameter(query, "access_token")) {
            return plausible(&token).into();
        }
        // A cookie that was emptied is one that is gone: so scripts delete them.
        match cookie(headers, "token").filter(|token| !token.is_empty()) {
            Some(token)
                if purpose == Purpose::Read
                    || origins.trusts(headers)
                    || (purpose == Purpose::Stream && from_own_page(headers)) =>
            {
                plausible(token).into()
            }
            _ => Presented::Nothing,
        }
    }

    /// Whether the client offered the subprotocol, so that it must be echoed.
    pub fn offers_subprotocol(headers: &HeaderMap) -> bool {
        subprotocols(headers).contains(&SUBPROTOCOL)
    }
}

impl From<Option<&str>> for Presented {
    fn from(token: Option<&str>) -> Presented {
        token.map_or(Presented::Bad, |token| Presented::Token(token.to_owned()))
    }
}

/// Whether a browser says so, and nothing speaks against it. Pages cannot set this header.
fn from_own_page(headers: &HeaderMap) -> bool {
    !headers.contains_key(ORIGIN) && single(headers, &SEC_FETCH_SITE) == Some("same-origin")
}

/// The header's value if it stands there once and is text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok())?
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| plausible(token))?
}

/// A token stands in one piece.
fn plausible(token: &str) -> Option<&str> {
    let token = token.trim();
    // All of it, so that many bytes are looked at at once.
    let graphic = token.bytes().fold(true, |all, byte| all & byte.is_ascii_graphic());
    (!token.is_empty() && graphic).then_some(token)
}

fn subprotocols(headers: &HeaderMap) -> Vec<&str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|offer| !offer.is_empty())
        .collect()
}

/// The first cookie of that name.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().trim_matches('"'))
}

/// The first parameter of that name, percent-decoded; one that cannot be decoded is no token.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)?
        .1;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Some(String::new()),
                }
            }
            b'+' => b' ',
            other => other,
        });
    }
    Some(String::from_utf8(bytes).unwrap_or_default())
}
