//! A web server for the files of a folder: HEAD and GET, with or without ranges, without listings.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// Serves the files below `folder`; returns the URL.
pub fn serve(folder: &Path) -> String {
    start(folder, true)
}

/// Like [`serve`], but ignores `Range` headers and sends the whole file, as HTTP allows.
pub fn serve_whole(folder: &Path) -> String {
    start(folder, false)
}

fn start(folder: &Path, has_ranges: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || respond(&folder, stream, has_ranges));
        }
    });
    url
}

fn respond(folder: &Path, stream: TcpStream, has_ranges: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut range = None;
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            range = bytes.split_once('-').map(|(a, b)| (a.to_owned(), b.to_owned()));
        }
    }
    let mut stream = &stream;
    let close = "Connection: close\r\n";
    let Ok(bytes) = fs::read(folder.join(target.trim_start_matches('/'))) else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n{close}\r\n");
    };
    let modified = "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\n";
    let (status, more, part) = match range.filter(|_| has_ranges) {
        None => ("200 OK", String::new(), &bytes[..]),
        Some((a, b)) => {
            let start: usize = a.parse().unwrap_or(0);
            let end = b.parse().map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len()));
            let content_range =
                format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
            ("206 Partial Content", content_range, &bytes[start..end])
        }
    };
    let length = part.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{modified}{more}{close}\r\n")?;
    match method {
        "GET" => stream.write_all(part),
        _ => Ok(()),
    }
}
