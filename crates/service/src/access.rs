//! Access rights: the tokens of a file, each with a name and rights. The file holds SHA-256 hashes, so that it gives no token
//! away; a token is 256 random bits, so that its hash needs neither salt nor stretching.
//!
//! ```toml
//! [[token]]
//! name = "ci"
//! sha256 = "64 hexadecimal digits"
//! rights = ["read", "submit"]
//! ```

mod file;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, COOKIE, HeaderMap};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tracing::{error, info};

use self::file::read;
use crate::ApiError;
use crate::auth::bearer;
use crate::reload::{Stamps, watch};
use crate::routes::{Demand, Route};

pub use self::file::{add, new_token};

/// A right of a token's bearer. `admin` implies the others; no other right implies another, so that a client that submits need
/// not see the jobs of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// See jobs, results, events, workers and figures.
    Read,
    /// Submit jobs; cancel, pause, resume and retry them.
    Submit,
    /// Add and remove programs.
    Programs,
    /// All actions.
    Admin,
}

impl Right {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Programs => "programs",
            Self::Admin => "admin",
        }
    }
}

/// Some rights, as `read,submit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rights(Vec<Right>);

impl Rights {
    /// Whether these rights include `right`.
    #[must_use]
    pub fn include(&self, right: Right) -> bool {
        self.0.contains(&Right::Admin) || self.0.contains(&right)
    }
}

impl FromStr for Rights {
    type Err = anyhow::Error;

    fn from_str(list: &str) -> anyhow::Result<Self> {
        let mut rights = Vec::new();
        for name in list.split(',').map(str::trim) {
            let all = [Right::Read, Right::Submit, Right::Programs, Right::Admin];
            let Some(right) = all.into_iter().find(|right| right.as_str() == name) else {
                bail!("{name:?} is no right: there are read, submit, programs and admin");
            };
            if !rights.contains(&right) {
                rights.push(right);
            }
        }
        Ok(Self(rights))
    }
}

/// The cookie that holds the token of a browser that has signed in. The cookie counts for pages alone: a program sends its token
/// in the header.
pub const TOKEN_COOKIE: &str = "divvy_token";

/// Interval at which [`until_revoked`] checks a token.
const REVOKED_INTERVAL: Duration = Duration::from_secs(5);

/// The sender of a request. A handler takes it as an argument.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    name: Option<Arc<str>>,
    /// Rights of the caller; `None` for all rights.
    rights: Option<Rights>,
}

impl Caller {
    /// The caller of a request.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// The name of the caller's token; `None` if no token was demanded.
    #[must_use]
    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Whether the caller has shown a token with this right; false if no token was demanded.
    #[must_use]
    pub fn has(&self, right: Right) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.include(right))
    }

    /// Whether the caller may do what `right` allows.
    #[must_use]
    pub fn may(&self, right: Right) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.include(right))
    }

    /// Demands a right beyond the one of the route. `purpose` says in the error what needs it.
    ///
    /// # Errors
    /// The caller lacks the right.
    pub fn demand(&self, right: Right, purpose: &str) -> Result<(), ApiError> {
        if self.may(right) {
            return Ok(());
        }
        Err(match &self.name {
            None => ApiError::NoToken,
            Some(name) => {
                let right = right.as_str();
                ApiError::Forbidden(format!("the token {name:?} lacks the right {right:?}, which {purpose} needs"))
            }
        })
    }

    /// A sender without a token where tokens are demanded.
    fn anonymous(rights: &[Right]) -> Self {
        Self { name: None, rights: Some(Rights(rights.to_vec())) }
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(Ok(Self::of(request)))
    }
}

/// The tokens that a listener demands, or none: then every caller may do everything.
#[derive(Clone, Debug)]
pub struct Access(Option<Arc<Tokens>>);

#[derive(Debug)]
struct Tokens {
    file: PathBuf,
    anonymous_read: bool,
    entries: RwLock<Vec<TokenEntry>>,
}

#[derive(Debug)]
struct TokenEntry {
    name: Arc<str>,
    hash: [u8; 32],
    rights: Rights,
}

impl Access {
    /// No token is demanded.
    #[must_use]
    pub fn open() -> Self {
        Self(None)
    }

    /// Demands a token of `file`, which is read again when it changes; if the new content is invalid, the old tokens stay. With
    /// `anonymous_read`, requests that need [`Right::Read`] need no token.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid file of tokens.
    pub fn from_file(file: &Path, anonymous_read: bool) -> anyhow::Result<Self> {
        let stamps = Stamps::of([file.to_owned()]);
        let entries = RwLock::new(read(file)?);
        let tokens = Arc::new(Tokens { file: file.to_owned(), anonymous_read, entries });
        watch(stamps, Arc::downgrade(&tokens), Tokens::reload, Tokens::complain)
            .context("start the thread that reads tokens again")?;
        Ok(Self(Some(tokens)))
    }

    /// Whether every caller may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a text is a known token.
    #[must_use]
    pub fn knows(&self, token: &str) -> bool {
        self.0.as_ref().is_some_and(|tokens| tokens.find(token.as_bytes()).is_some())
    }

    /// The caller of a request, if it may use `route`.
    pub(crate) fn demand(
        &self,
        headers: &HeaderMap,
        pattern: Option<&str>,
        route: Option<&Route>,
    ) -> Result<Caller, ApiError> {
        let Some(tokens) = &self.0 else { return Ok(Caller::default()) };
        let right = match (route.map(Route::demand), pattern) {
            (Some(Demand::Nothing | Demand::NoToken), _) => return Ok(Caller::anonymous(&[])),
            (Some(Demand::Right(right)), _) => right,
            // A route that is missing in the table is open to administrators alone.
            (None, Some(_)) => Right::Admin,
            // A client without rights must not learn either that a resource does not exist.
            (None, None) => Right::Read,
        };
        let is_page = route.is_some_and(|route| route.refusal().is_some());
        let token = bearer(headers).or_else(|| cookie(headers).filter(|_| is_page));
        let Some((name, rights)) = token.and_then(|token| tokens.find(token)) else {
            // A cookie of a token that is gone closes no page that anyone may read.
            let may_pass = tokens.anonymous_read && right == Right::Read && !headers.contains_key(AUTHORIZATION);
            return match bearer(headers) {
                _ if may_pass => Ok(Caller::anonymous(&[Right::Read])),
                Some(_) => Err(ApiError::UnknownToken),
                None => Err(ApiError::NoToken),
            };
        };
        if rights.include(right) {
            return Ok(Caller { name: Some(name), rights: Some(rights) });
        }
        Err(ApiError::Forbidden(format!("the token {name:?} lacks the right {:?}", right.as_str())))
    }
}

/// Resolves once a change of the file of tokens has taken a right from the token of a request: answers without an end stop then.
/// Another token under the same name does not count. Never resolves for a request that was let in without a token.
pub fn until_revoked(request: &HttpRequest, right: Right) -> impl Future<Output = ()> + use<> {
    let access = request.app_data::<Data<Access>>().map(Data::get_ref);
    let tokens = access.and_then(|Access(tokens)| tokens.clone());
    // An anonymous reader may have sent the cookie of a token that is gone.
    let token = bearer(request.headers()).or_else(|| cookie(request.headers()));
    let token = token.filter(|_| Caller::of(request).name.is_some());
    let hash: Option<[u8; 32]> = token.map(|token| Sha256::digest(token).into());
    async move {
        let (Some(tokens), Some(hash)) = (tokens, hash) else { return std::future::pending().await };
        while tokens.grant(&hash, right) {
            tokio::time::sleep(REVOKED_INTERVAL).await;
        }
    }
}

impl Tokens {
    /// Whether the token of this hash has the right now.
    fn grant(&self, hash: &[u8; 32], right: Right) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().any(|entry| entry.hash == *hash && entry.rights.include(right))
    }

    /// Compares a token with every entry, in a time that does not depend on the matching entry.
    fn find(&self, token: &[u8]) -> Option<(Arc<str>, Rights)> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut index) = (Choice::from(0), 0u32);
        for (at, entry) in (0u32..).zip(entries.iter()) {
            let is_it = entry.hash.ct_eq(&hash);
            index.conditional_assign(&at, is_it);
            found |= is_it;
        }
        let entry = entries.get(usize::try_from(index).ok()?).filter(|_| bool::from(found))?;
        Some((Arc::clone(&entry.name), entry.rights.clone()))
    }

    fn reload(&self) -> anyhow::Result<()> {
        let entries = read(&self.file)?;
        info!(file = %self.file.display(), tokens = entries.len(), "the file of tokens was read again");
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
        Ok(())
    }

    fn complain(&self, error: &str) {
        let file = self.file.display();
        error!(%file, error, "the file of tokens is broken (DIVVY_API_TOKENS_FILE): the tokens read before stay valid");
    }
}

/// The token in the cookie. The characters of a token need no encoding in a cookie.
fn cookie(headers: &HeaderMap) -> Option<&[u8]> {
    let pairs = headers.get_all(COOKIE).flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    let named = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(TOKEN_COOKIE.as_bytes()));
    named.filter_map(|rest| rest.strip_prefix(b"=")).find(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn rights_are_read_from_a_list_and_admin_implies_all() {
        let some: Rights = "read, submit".parse().expect("rights");
        assert!(some.include(Right::Read) && some.include(Right::Submit));
        assert!(!some.include(Right::Programs) && !some.include(Right::Admin));
        let admin: Rights = "admin".parse().expect("rights");
        assert!([Right::Read, Right::Submit, Right::Programs, Right::Admin].iter().all(|right| admin.include(*right)));
        let error = "read,write".parse::<Rights>().expect_err("no right").to_string();
        assert_eq!(error, "\"write\" is no right: there are read, submit, programs and admin");
    }

    #[test]
    fn a_cookie_of_a_token_that_is_gone_closes_no_page_that_anyone_may_read() {
        let demand = |anonymous_read, right, (name, value): (HeaderName, &str)| {
            let tokens = Tokens { file: PathBuf::new(), anonymous_read, entries: RwLock::default() };
            let page = Route::page("GET", "/jobs", right, |error, _| error.error_response());
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a value"))]);
            Access(Some(Arc::new(tokens))).demand(&headers, Some("/jobs"), Some(&page))
        };
        let gone = format!("{TOKEN_COOKIE}=divvy_gone");
        assert!(demand(true, Right::Read, (COOKIE, gone.as_str())).is_ok_and(|caller| caller.name().is_none()));
        assert!(demand(false, Right::Read, (COOKIE, gone.as_str())).is_err());
        assert!(demand(true, Right::Submit, (COOKIE, gone.as_str())).is_err());
        assert!(demand(true, Right::Read, (AUTHORIZATION, "Bearer gone")).is_err(), "a wrong token is told");
    }

    #[test]
    fn an_added_token_is_found_and_a_second_of_its_name_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tokens.toml");
        let (read_only, admin) = ("read".parse().expect("rights"), "admin".parse().expect("rights"));
        let first = add(&file, "first", &read_only).expect("added");
        // An editor may leave a file without a final line break: the next entry must not join its last line.
        std::fs::write(&file, std::fs::read_to_string(&file).expect("text").trim_end()).expect("written");
        let second = add(&file, "second@host", &admin).expect("added");
        assert_ne!(first, second);
        let error = add(&file, "first", &admin).expect_err("taken");
        assert!(format!("{error:#}").ends_with("it has a token \"first\" already"), "{error:#}");
        assert!(add(&file, "new\nline", &admin).is_err());
        let text = std::fs::read_to_string(&file).expect("text");
        assert!(!text.contains(&first) && !text.contains(&second));
        let tokens = Tokens { entries: RwLock::new(read(&file).expect("valid")), file, anonymous_read: false };
        let (name, rights) = tokens.find(second.as_bytes()).expect("found");
        assert_eq!((&*name, rights), ("second@host", admin));
        assert_eq!(tokens.find(first.as_bytes()).map(|(name, _)| name).as_deref(), Some("first"));
        assert!(tokens.find(b"divvy_").is_none());
    }
}
