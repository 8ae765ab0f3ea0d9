use super::super::{LabelGraph, csv, jsonl};
use super::*;

fn rows(text: &str) -> Result<Dataset> {
    csv::read(Path::new("d/rows.csv"), text, None, &Default::default())
}

fn pictures(data: &Dataset) -> Vec<&str> {
    data.items.ids(Modality::Image).map(|id| data.items.get(id)).collect()
}

#[test]
fn a_column_of_picture_names_holds_pictures_of_the_datas_folder() {
    let data = rows("a/1.jpg,a black sneaker\n./2.PNG,see 3.jpg\n").unwrap();
    assert_eq!((data.kind, pictures(&data)), (Kind::Pairs, vec!["d/a/1.jpg", "d/./2.PNG"]));
    assert_eq!(data.items.ids(Modality::Text).count(), 2);
    assert!(data.decision.ends_with("; pictures in `1`"), "{}", data.decision);
    let data = rows("file,split,class\n1.jpg,train,x\n2.jpg,test,y\n").unwrap();
    assert_eq!((data.kind, pictures(&data).len(), data.classes()), (Kind::Labelled, 2, 2));
    let data = rows("anchor,positive,negative\n1.jpg,2.jpg,3.jpg\n").unwrap();
    assert_eq!((data.kind, pictures(&data).len()), (Kind::Triplets, 3));
    let data = rows("image\nhttps://example.org/image?id=3\n").unwrap();
    assert_eq!((data.kind, pictures(&data)), (Kind::Single, vec!["https://example.org/image?id=3"]));
    let data = rows("url,text\nhttps://example.org/page,a\nx,b\n").unwrap();
    assert_eq!((data.kind, pictures(&data).len()), (Kind::Single, 0));
}

#[test]
fn captions_of_a_picture_all_match_it_and_are_looked_up_by() {
    let text = r#"{"file": "1.jpg", "captions": ["one", "uno"], "split": "train"}
                  {"file": "2.jpg", "captions": ["two"], "split": "train"}"#;
    let data = jsonl::read(Path::new("d/rows.jsonl"), text, None, &Default::default()).unwrap();
    assert_eq!((data.kind, data.examples.len(), &data.lines[..]), (Kind::Pairs, 3, &[1, 1, 2][..]));
    let Example::Pair { anchor, positive } = data.examples[1] else { panic!("{data:?}") };
    assert_eq!((data.items.get(anchor), data.items.get(positive)), ("uno", "d/1.jpg"));
    let graph = LabelGraph::from_dataset(&data);
    let label = |text: &str| graph.label(data.items.find(text).unwrap());
    assert!(label("one") == label("uno") && label("one") != label("two"));
    let data = rows("image,text,score\n1.jpg,one,0.5\n2.jpg,two,0.7\n").unwrap();
    let Example::Scored { first, second, .. } = data.examples[0] else { panic!("{data:?}") };
    assert_eq!((data.items.get(first), data.items.get(second)), ("one", "d/1.jpg"));
}

#[test]
fn a_path_that_leaves_the_folder_is_refused_with_its_line() {
    for path in ["../1.jpg", "a/../../1.jpg", "/etc/1.jpg"] {
        let error = rows(&format!("image,label\n2.jpg,x\n{path},y\n")).unwrap_err().to_string();
        let expected = format!(
            "d/rows.csv:3: `{path}` leaves the folder of the data, `d`; put pictures into it, or the data file above them"
        );
        assert_eq!(error, expected);
    }
    assert_eq!(pictures(&rows("image,label\na/../1.jpg,x\nd/2.jpg,y\n").unwrap()), ["d/a/../1.jpg", "d/2.jpg"]);
}
