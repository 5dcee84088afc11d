//! What sets one registry apart from another, as far as clients stumble over it. Plain data.

/// How a registry departs from the distribution spec, or what it leaves out. The default keeps the spec, 1.1.
#[derive(Clone, Debug)]
pub(crate) struct Quirks {
    /// Has the referrers API, and says so by OCI-Subject.
    pub(crate) referrers: bool,
    /// What `mount` does.
    pub(crate) mount: Mount,
    /// What PATCH does.
    pub(crate) patch: Patch,
    /// The status of a PATCH that was taken.
    pub(crate) patch_status: u16,
    /// Range says forever what it said after the first PATCH.
    pub(crate) sticky_range: bool,
    /// OCI-Chunk-Min-Length: smaller chunks are refused, but for the last.
    pub(crate) min_chunk: Option<u64>,
    /// PUT of a larger body is refused with 413.
    pub(crate) max_put: Option<u64>,
    /// A session can be used once: a second request to it is answered with 416.
    pub(crate) one_use: bool,
    /// The status of DELETE of an upload, if it is refused.
    pub(crate) cancel: Option<u16>,
    /// The form of upload Locations.
    pub(crate) location: Location,
    /// PUT of a manifest says its Location.
    pub(crate) manifest_location: bool,
    /// Says Docker-Content-Digest.
    pub(crate) digest_header: bool,
    /// An image tag that is there can name no other manifest.
    pub(crate) immutable: bool,
    /// Takes manifests whose blobs are missing.
    pub(crate) lenient: bool,
    /// Repositories come only by [`super::Server::make_repository`].
    pub(crate) made_repositories: bool,
    /// How many image tags a page has, and with what a larger `n` is answered.
    pub(crate) page: usize,
    pub(crate) large_page: Option<u16>,
    /// A repository without image tags has `null` for them.
    pub(crate) null_tags: bool,
    /// Answers 400 to requests with Authorization, as object stores do when the URL is signed.
    pub(crate) refuse_authorization: bool,
    /// Sets a cookie, and refuses requests that send it back.
    pub(crate) cookies: bool,
    /// An image tag `sha256-HEX` that is not there names the manifest of that digest.
    pub(crate) digest_tags: bool,
    /// Takes no more requests that read manifests than these: 429. HEAD is free.
    pub(crate) rate: Option<u32>,
}

/// What `POST …?mount=DIGEST&from=NAME` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mount {
    /// It mounts, or opens an upload session.
    Works,
    /// It always opens an upload session.
    Ignored,
    /// It is answered with this status.
    Fails(u16),
    /// It fails without `from`.
    NeedsFrom,
    /// It mounts what a manifest of the other repository references.
    Referenced,
}

/// What PATCH does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patch {
    Works,
    /// It is answered with this status.
    Fails(u16),
    /// Larger chunks are answered with 416.
    Limit(u64),
}

/// How upload Locations look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Location {
    /// `/v2/…?_state=…`
    Relative,
    /// `/v2/…`
    Plain,
    /// `http://HOST/v2/…?_state=…`
    Absolute,
    /// `http://` and this host, with a query: the session is known there too.
    Other(String),
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            referrers: true,
            mount: Mount::Works,
            patch: Patch::Works,
            patch_status: 202,
            sticky_range: false,
            min_chunk: None,
            max_put: None,
            one_use: false,
            cancel: None,
            location: Location::Relative,
            manifest_location: true,
            digest_header: true,
            immutable: false,
            lenient: false,
            made_repositories: false,
            page: 1000,
            large_page: None,
            null_tags: false,
            refuse_authorization: false,
            cookies: false,
            digest_tags: false,
            rate: None,
        }
    }
}

impl Quirks {
    /// The names of the profiles.
    pub(crate) const NAMES: [&'static str; 9] = [
        "ghcr",
        "gar",
        "ecr",
        "quay",
        "hub",
        "acr",
        "artifactory",
        "harbor",
        "gitlab",
    ];

    /// The profile of a registry as it was seen in the wild. What concerns logins is in [`super::Auth::profile`].
    pub(crate) fn profile(name: &str) -> Self {
        let spec = Self::default();
        match name {
            "ghcr" => Self {
                referrers: false,
                patch: Patch::Limit(4 << 20),
                cancel: Some(405),
                ..spec
            },
            "gar" => Self {
                patch: Patch::Fails(400),
                location: Location::Absolute,
                ..spec
            },
            "ecr" => Self {
                mount: Mount::Referenced,
                patch_status: 201,
                sticky_range: true,
                one_use: true,
                manifest_location: false,
                made_repositories: true,
                page: 1000,
                large_page: Some(400),
                ..spec
            },
            "quay" => Self {
                mount: Mount::NeedsFrom,
                page: 50,
                large_page: Some(413),
                ..spec
            },
            "hub" => Self {
                referrers: false,
                location: Location::Absolute,
                rate: Some(10),
                ..spec
            },
            "acr" => Self {
                max_put: Some(5 << 20),
                location: Location::Plain,
                ..spec
            },
            "artifactory" => Self {
                referrers: false,
                location: Location::Absolute,
                digest_header: false,
                ..spec
            },
            "harbor" => Self {
                mount: Mount::Fails(401),
                cookies: true,
                ..spec
            },
            "gitlab" => Self {
                referrers: false,
                digest_tags: true,
                null_tags: true,
                ..spec
            },
            other => panic!("there is no profile {other}"),
        }
    }
}
