use dor_atlas::*;
use std::io::Read;
struct FileSource(std::fs::File, String, u64);
impl read::Source for FileSource {
    fn url(&self) -> &str {
        &self.1
    }
    fn len(&self) -> u64 {
        self.2
    }
    fn next(&mut self) -> Result<Option<bytes::Bytes>, read::SourceError> {
        let mut b = vec![0; 4 << 20];
        let mut n = 0;
        while n < b.len() {
            let k = self.0.read(&mut b[n..])?;
            if k == 0 {
                break;
            }
            n += k;
        }
        b.truncate(n);
        Ok((n > 0).then(|| b.into()))
    }
    fn range(&mut self, r: std::ops::Range<u64>) -> Result<bytes::Bytes, read::SourceError> {
        use std::os::unix::fs::FileExt;
        let mut b = vec![0; (r.end - r.start) as usize];
        self.0.read_exact_at(&mut b, r.start)?;
        Ok(b.into())
    }
}
struct Sink(std::fs::File);
impl research::convert::PartSink for Sink {
    fn part_size(&self) -> usize {
        16 << 20
    }
    fn part(&mut self, i: usize, d: bytes::Bytes) -> Result<(), read::SourceError> {
        use std::os::unix::fs::FileExt;
        self.0.write_all_at(&d, (i * (16 << 20)) as u64)?;
        Ok(())
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let grid = (a.len() > 4).then(|| {
        std::sync::Arc::new(read::grid::parse(&std::fs::read(&a[4]).unwrap(), "g").unwrap())
    });
    let f = std::fs::File::open(&a[1]).unwrap();
    let n = f.metadata().unwrap().len();
    let ctx = research::convert::CaseContext::new("112-04".parse().unwrap(), grid);
    let name = a[1].rsplit('/').next().unwrap();
    let month = name[name.len() - 10..name.len() - 3].parse().unwrap();
    let t = std::time::Instant::now();
    let c = research::convert::convert(
        research::convert::Input {
            source: Box::new(FileSource(f, a[1].clone(), n)),
            month,
            name,
            modified: Default::default(),
        },
        &ctx,
        &mut Sink(std::fs::File::create(&a[2]).unwrap()),
    );
    println!("{:?} {:?}", c, t.elapsed());
}
