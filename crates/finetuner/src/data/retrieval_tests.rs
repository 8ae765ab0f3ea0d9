use super::super::csv;
use super::super::read::tests::shared;
use super::*;

fn data(rows: &str) -> Dataset {
    csv::read(Path::new("rows.csv"), rows, None, &Default::default()).unwrap()
}

/// Query text, relevant texts.
fn relevant(set: &RetrievalSet) -> Vec<(&str, Vec<&str>)> {
    let texts = |relevant: &[(u32, f32)]| relevant.iter().map(|(at, _)| set.documents[*at as usize].as_str()).collect();
    set.queries.iter().zip(&set.relevant).map(|(query, relevant)| (query.as_str(), texts(relevant))).collect()
}

fn places_are_sound(set: &RetrievalSet) {
    assert_eq!(set.queries.len(), set.query_ids.len());
    assert_eq!(set.queries.len(), set.relevant.len());
    assert_eq!(set.documents.len(), set.document_ids.len());
    for (query, relevant) in set.relevant.iter().enumerate() {
        assert!(!relevant.is_empty() && relevant.is_sorted_by(|one, next| one.0 < next.0));
        let excluded = set.exclude.as_ref().and_then(|exclude| exclude[query]);
        assert!(
            relevant
                .iter()
                .all(|(at, grade)| { (*at as usize) < set.documents.len() && *grade > 0.0 && Some(*at) != excluded })
        );
    }
}

#[test]
fn labelled_items_search_each_other_without_themselves() {
    let set = RetrievalSet::from_dataset(&data("id,text,label\ni,a,x\nj,b,y\nk,c,x\nl,d,z\n")).unwrap();
    places_are_sound(&set);
    assert_eq!(relevant(&set), [("a", vec!["c"]), ("c", vec!["a"])]);
    assert_eq!(set.exclude, Some(vec![Some(0), Some(2)]));
    assert_eq!(set.documents.len(), 4);
    assert_eq!(set.query_ids, ["i", "k"]);
    assert_eq!(set.without_relevant, 2);
    assert_eq!(
        set.description,
        "2 queries over 4 documents, the query itself excluded; relevant: items of the query's class; 2 queries left out, \
         as nothing in the index is relevant to them"
    );
}

#[test]
fn labelled_queries_find_the_index_by_the_name_of_the_class() {
    let (queries, index) = (data("text,label\nq1,y\nq2,x\nq3,w\n"), data("text,label\na,x\nb,y\nc,x\n"));
    let set = RetrievalSet::from_labelled(&queries, Some(&index)).unwrap();
    places_are_sound(&set);
    assert_eq!(relevant(&set), [("q1", vec!["b"]), ("q2", vec!["a", "c"])]);
    assert_eq!((set.exclude, set.without_relevant), (None, 1));
}

#[test]
fn pairs_are_relevant_along_the_label_graph() {
    let set = RetrievalSet::from_dataset(&data("q1,a\nq2,b\nq1,b\nq3,c\n")).unwrap();
    places_are_sound(&set);
    assert_eq!(relevant(&set), [("q1", vec!["a", "b"]), ("q2", vec!["a", "b"]), ("q3", vec!["c"])]);
    assert_eq!(set.exclude, None);
}

#[test]
fn a_text_that_is_query_and_document_does_not_find_itself() {
    let set = RetrievalSet::from_dataset(&data("a,b\nb,c\nd,d\n")).unwrap();
    places_are_sound(&set);
    assert_eq!(relevant(&set), [("a", vec!["b", "c"]), ("b", vec!["c"])]);
    assert_eq!(set.exclude, Some(vec![None, Some(0)]));
    assert_eq!(set.without_relevant, 1, "d matches only itself");
}

#[test]
fn a_query_may_be_asked_to_find_itself() {
    let set = RetrievalSet::from_dataset(&data("text,label\na,x\nb,y\nc,x\nd,z\n")).unwrap().include_self();
    places_are_sound(&set);
    assert_eq!(relevant(&set), [("a", vec!["a", "c"]), ("c", vec!["a", "c"])]);
    assert_eq!(set.exclude, Some(vec![None, None]));
    assert!(set.description.starts_with("2 queries over 4 documents, the query itself among them;"));
    let set = RetrievalSet::from_dataset(&data("a,b\nb,c\n")).unwrap().include_self();
    assert_eq!(relevant(&set), [("a", vec!["b", "c"]), ("b", vec!["b", "c"])]);
}

#[test]
fn a_sample_keeps_some_queries_and_all_documents() {
    let rows: String = (0..50).map(|row| format!("q{row},d{row}\n")).collect();
    let set = RetrievalSet::from_dataset(&data(&rows)).unwrap();
    let sample = set.clone().sample(20, 3);
    places_are_sound(&sample);
    assert_eq!((sample.queries.len(), sample.documents.len()), (20, 50));
    for (query, documents) in relevant(&sample) {
        assert_eq!(documents, [query.replace('q', "d")]);
    }
    assert!(sample.description.starts_with("20 of 50 queries over 50 documents; "), "{}", sample.description);
    assert_eq!(sample.queries, set.clone().sample(20, 3).queries);
    assert_ne!(sample.queries, set.clone().sample(20, 4).queries);
    assert_eq!(set.clone().sample(50, 3).queries, set.queries);
}

#[test]
fn negatives_are_searched_but_not_relevant() {
    let set = RetrievalSet::from_dataset(&data("anchor,positive,negative\nq,a,b\nr,c,a\n")).unwrap();
    assert_eq!(relevant(&set), [("q", vec!["a"]), ("r", vec!["c"])]);
    assert_eq!(set.documents, ["a", "b", "c"]);
}

#[test]
fn an_index_adds_documents_and_equal_texts_are_one() {
    let (queries, index) = (data("id,anchor,positive\np,q,b\nr,s,d\n"), data("id,text\none,a\ntwo,b\nthree,c\n"));
    let set = RetrievalSet::from_pairs(&queries, Some(&index)).unwrap();
    places_are_sound(&set);
    assert_eq!(set.documents, ["a", "b", "c", "d"]);
    assert_eq!(set.document_ids, ["one", "two", "three", "r"]);
    assert_eq!(set.query_ids, ["p", "r"]);
    assert_eq!(relevant(&set), [("q", vec!["b"]), ("s", vec!["d"])]);
}

#[test]
fn data_without_a_notion_of_relevance_is_refused() {
    let error = |rows| RetrievalSet::from_dataset(&data(rows)).unwrap_err().to_string();
    assert!(
        error("a,b,1.5\n").contains("`query_data`: expected labelled, pairs or triplets"),
        "{}",
        error("a,b,1.5\n")
    );
    assert!(error("a\nb\n").contains("got single"));
    assert!(error("text,label\na,x\nb,y\n").contains("no query has a relevant document"));
}

#[test]
fn the_packages_example_asks_800_queries_of_3800_descriptions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/packages");
    let set = read_retrieval(&folder.join("test.csv"), Some(&folder.join("index.csv")), None).unwrap();
    places_are_sound(&set);
    assert_eq!((set.queries.len(), set.documents.len(), set.without_relevant), (800, 3800, 0));
    for (id, relevant) in set.query_ids.iter().zip(&set.relevant) {
        assert_eq!(relevant.len(), 1);
        assert_eq!(*id, set.document_ids[relevant[0].0 as usize]);
    }
    let alone = read_retrieval(&folder.join("test.csv"), None, None).unwrap();
    assert_eq!((alone.queries.len(), alone.documents.len()), (800, 800));
}

#[test]
fn a_beir_split_is_searched_in_its_whole_corpus() {
    for (name, queries, documents) in [("scifact:test", 300, 5183), ("cranfield", 225, 1400), ("cacm", 52, 3204)] {
        let Some(folder) = shared("retrieval/scifact") else { return };
        let set = read_retrieval(&folder.with_file_name(name), None, None).unwrap();
        places_are_sound(&set);
        assert_eq!((set.queries.len(), set.documents.len()), (queries, documents), "{name}");
        assert!(set.documents.iter().all(|document| document.trim() == document));
    }
    let Some(folder) = shared("retrieval/scifact") else { return };
    let error = read_retrieval(&folder, Some(&folder), None).unwrap_err().to_string();
    assert!(error.contains("`index_data`: a BEIR folder brings its own index"), "{error}");
}

#[test]
fn banking77_asks_its_test_part_of_its_training_part() {
    let Some(train) = shared("text-classes/banking77/train.csv") else { return };
    let set = read_retrieval(&train.with_file_name("test.csv"), Some(&train), None).unwrap();
    places_are_sound(&set);
    assert_eq!((set.queries.len(), set.documents.len(), set.without_relevant), (3080, 10_003, 0));
}
