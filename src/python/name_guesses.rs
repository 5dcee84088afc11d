//! Names of packages that another name may be meant to be: slips of the keyboard, and names that code imports.
//!
//! An index cannot be searched: these are guesses, and whoever shows one asks first whether there is such a package. Only
//! well-known names are guessed. One that is made up of the name at hand would tell a stranger's index of a private
//! package, and may be one that others made up before, to be taken by mistake.

use pep508_rs::PackageName;

/// How many guesses there are at most: each may cost a request.
const GUESSES: usize = 8;

/// What code imports, and the package that has it.
const IMPORTS: &[(&str, &[&str])] = &[
    ("attr", &["attrs"]),
    ("beautifulsoup", &["beautifulsoup4"]),
    ("bs4", &["beautifulsoup4"]),
    ("crypto", &["pycryptodome"]),
    ("cv2", &["opencv-python-headless", "opencv-python"]),
    ("dateutil", &["python-dateutil"]),
    ("discord", &["discord-py"]),
    ("django-rest-framework", &["djangorestframework"]),
    ("docx", &["python-docx"]),
    ("dotenv", &["python-dotenv"]),
    ("engineio", &["python-engineio"]),
    ("faiss", &["faiss-cpu"]),
    ("fitz", &["pymupdf"]),
    ("git", &["gitpython"]),
    ("github", &["pygithub"]),
    ("google-protobuf", &["protobuf"]),
    ("grpc", &["grpcio"]),
    ("jose", &["python-jose"]),
    ("jwt", &["pyjwt"]),
    ("kafka", &["kafka-python"]),
    ("ldap", &["python-ldap"]),
    ("magic", &["python-magic"]),
    ("multipart", &["python-multipart"]),
    ("mysqldb", &["mysqlclient"]),
    ("nacl", &["pynacl"]),
    ("openssl", &["pyopenssl"]),
    ("opencv", &["opencv-python-headless", "opencv-python"]),
    ("pil", &["pillow"]),
    ("pkg-resources", &["setuptools"]),
    ("postgres", &["psycopg"]),
    ("pptx", &["python-pptx"]),
    ("psycopg2", &["psycopg2-binary"]),
    ("pytorch", &["torch"]),
    ("sentry", &["sentry-sdk"]),
    ("serial", &["pyserial"]),
    ("skimage", &["scikit-image"]),
    ("sklearn", &["scikit-learn"]),
    ("slack", &["slack-sdk"]),
    ("slugify", &["python-slugify"]),
    ("socketio", &["python-socketio"]),
    ("telegram", &["python-telegram-bot"]),
    ("usb", &["pyusb"]),
    ("websocket", &["websocket-client"]),
    ("yaml", &["pyyaml"]),
    ("zmq", &["pyzmq"]),
];

/// Packages that many use: what a slip of the keyboard most likely meant.
const COMMON: &str = "aiobotocore aiofiles aiohttp aiosqlite alembic annotated-types anyio apscheduler argon2-cffi asgiref \
    asyncpg attrs authlib azure-identity azure-storage-blob babel bcrypt beautifulsoup4 black boto3 botocore cachetools \
    celery certifi cffi charset-normalizer click colorama confluent-kafka coverage cryptography datasets decorator django \
    djangorestframework dnspython docker duckdb elasticsearch email-validator fastapi filelock flask flask-cors \
    flask-sqlalchemy fsspec gevent gitpython google-auth google-cloud-storage greenlet grpcio gunicorn httpcore httptools \
    httpx huggingface-hub hypothesis importlib-metadata ipython itsdangerous jinja2 jmespath joblib jsonschema kombu \
    kubernetes loguru lxml mako markdown markupsafe marshmallow matplotlib msgpack mypy mysqlclient networkx nltk numpy \
    oauthlib openai opencv-python opencv-python-headless openpyxl opentelemetry-api opentelemetry-sdk orjson packaging \
    pandas paramiko passlib pillow plotly polars prometheus-client protobuf psutil psycopg psycopg2-binary pyarrow \
    pycryptodome pydantic pydantic-settings pygments pyjwt pymongo pymysql pynacl pyopenssl pyparsing pytest \
    python-dateutil python-dotenv python-multipart pytz pyyaml rapidfuzz redis regex requests requests-oauthlib rich ruff \
    s3fs scikit-image scikit-learn scipy seaborn sentry-sdk setuptools shapely six slack-sdk sniffio spacy sqlalchemy \
    sqlmodel starlette statsmodels streamlit stripe structlog sympy tabulate tenacity tensorflow tiktoken tokenizers \
    torch torchvision tornado tqdm transformers typer typing-extensions tzdata ujson urllib3 uvicorn uvloop virtualenv \
    watchfiles websocket-client websockets werkzeug wheel xgboost xlsxwriter youtube-transcript-api zstandard";

/// Returns the packages that have what code imports under a name.
pub(super) fn imported(name: &PackageName) -> &'static [&'static str] {
    let found = IMPORTS.iter().find(|it| it.0 == name.as_ref());
    found.map_or(&[], |it| it.1)
}

/// Returns those of some names that a name may be a slip of, the nearest first.
pub(crate) fn similar<'a>(
    name: &PackageName,
    names: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    let name = name.as_ref();
    let distance = |it: &str| strsim::damerau_levenshtein(it, name);
    // Of a short name, nearly every other short one is near.
    let most = name.len() / 4;
    let fits = |it: &&str| *it != name && distance(it) <= most.clamp(1, 2);
    let mut found: Vec<&str> = names.into_iter().filter(fits).collect();
    found.sort_by_key(|it| (distance(it), *it));
    found.dedup();
    found
}

/// Returns packages that a name may be meant to be, the likeliest first; there may be none of them.
pub(crate) fn guesses(name: &PackageName) -> Vec<PackageName> {
    let text = name.as_ref();
    let mut all: Vec<String> = imported(name).iter().map(|it| (*it).to_owned()).collect();
    if text.len() > 2 {
        let common = similar(name, COMMON.split_whitespace());
        all.extend(common.into_iter().take(3).map(str::to_owned));
    }
    let mut found: Vec<PackageName> = Vec::new();
    for guess in all {
        // The parser takes an empty name.
        let guess: Option<PackageName> = guess.parse().ok().filter(|_| guess.len() > 1);
        if let Some(guess) = guess.filter(|it| it != name && !found.contains(it)) {
            found.push(guess);
        }
    }
    found.truncate(GUESSES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(name: &str) -> String {
        let name: PackageName = name.parse().unwrap();
        guesses(&name)[0].to_string()
    }

    #[test]
    fn guesses_what_is_meant() {
        for (name, meant) in [
            ("reqeusts", "requests"),
            ("request", "requests"),
            ("falsk", "flask"),
            ("numpi", "numpy"),
            ("yaml", "pyyaml"),
            ("PIL", "pillow"),
            ("sklearn", "scikit-learn"),
            ("sci-kit-learn", "scikit-learn"),
            ("beautifulsoup", "beautifulsoup4"),
            ("typing_extension", "typing-extensions"),
        ] {
            assert_eq!(first(name), meant, "{name}");
        }
    }

    #[test]
    fn guesses_are_few_and_other_names() {
        assert_eq!(guesses(&"acme-secret".parse().unwrap()), []);
        for name in ["a", "py", "python-", "x-y-z", "cv2", "pyzs", "requests"] {
            let Ok(name) = name.parse::<PackageName>() else {
                continue;
            };
            let all = guesses(&name);
            assert!(all.len() <= GUESSES && !all.contains(&name), "{all:?}");
            assert!(all.iter().all(|it| it.as_ref().len() > 1), "{all:?}");
        }
        let name = "helo".parse().unwrap();
        assert_eq!(
            similar(&name, ["help", "hello", "world", "helo"]),
            ["hello", "help"]
        );
    }

    #[test]
    fn tables_are_of_normalised_names() {
        let lists = IMPORTS.iter().flat_map(|it| it.1.iter().chain([&it.0]));
        for text in lists.copied().chain(COMMON.split_whitespace()) {
            let name: PackageName = text.parse().unwrap();
            assert_eq!(name.as_ref(), text);
        }
    }
}
