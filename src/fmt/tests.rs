//! The formatter on small texts: what it changes, what it keeps.

use super::format;

/// `text` becomes `expected`, which stays as it is.
fn check(text: &str, expected: &str) {
    let out = format(text);
    assert_eq!(out, expected, "formatting\n{text}");
    assert_eq!(format(&out), out, "formatting again");
}

#[test]
fn fields_of_a_run_are_aligned() {
    check(
        "stage a[o in [1,2]]{\nfrom=base\n tokens   = 50B   tokens\n\n\n lr = 1e-4\n\n# why\nx=1\n@cite( \"p\" )\nlong_name=2\ny = 3,z=4 # end\n}\n",
        "stage a[o in [1, 2]] {\n  from   = base\n  tokens = 50B tokens\n\n  lr = 1e-4\n\n  # why\n  x = 1\n  @cite(\"p\")\n  long_name = 2\n  y         = 3\n  z         = 4  # end\n}\n",
    );
}

#[test]
fn a_line_stays_a_line_while_it_fits() {
    check("mix m {a=1%,b=rest,}\nsource s{}\n", "mix m { a = 1%, b = rest }\nsource s {}\n");
    let wide = format!(
        "mix m {{ {} }}\n",
        (0..12).map(|i| format!("source_{i} = 1%")).collect::<Vec<_>>().join(", ")
    );
    let lines: String =
        (0..12).map(|i| format!("  source_{i}{} = 1%\n", if i < 10 { " " } else { "" })).collect();
    check(&wide, &format!("mix m {{\n{lines}}}\n"));
}

#[test]
fn comments_stay_where_they_are() {
    check(
        "# top\n\n\nuse \"x\"   # use\nmix m { # open\n# first\n a=1%   # one\n\n # last\n}# after\n# end",
        "# top\n\nuse \"x\"  # use\nmix m {  # open\n  # first\n  a = 1%  # one\n\n  # last\n}  # after\n# end\n",
    );
    check(
        "let v = 0   # start\n # ramp\n then linear(to: 1, over: 5 steps) # up\nthen hold # stay\n",
        "let v = 0  # start\n  # ramp\n  then linear(to: 1, over: 5 steps)  # up\n  then hold  # stay\n",
    );
    check(
        "let v = f( # open\n a:1, # one\n # two\n b:2\n # close\n)\n",
        "let v = f(\n  # open\n  a: 1,  # one\n  # two\n  b: 2,\n  # close\n)\n",
    );
    // No room for this one: as written.
    check("let v = 1 + ( # why\n   2)\nlet  w=1\n", "let v = 1 + ( # why\n   2)\nlet w = 1\n");
    check("let v = a then # why\n  b\n", "let v = a then # why\n  b\n");
}

#[test]
fn long_values_break_and_broken_ones_stay_broken() {
    check(
        "stage s {\nlr = inherit then hold(over: 5B tokens) then linear(to: 1e-5, over: 200 steps) then cosine(to: 0, over: 9% of stage)\n}\n",
        "stage s {\n  lr = inherit\n    then hold(over: 5B tokens)\n    then linear(to: 1e-5, over: 200 steps)\n    then cosine(to: 0, over: 9% of stage)\n}\n",
    );
    check("let v = 0\nthen linear(to: 0)\n", "let v = 0\n  then linear(to: 0)\n");
    check("let v = f(\na,b)\n", "let v = f(\n  a,\n  b,\n)\n");
    check("let v = [\n1,2,\n3]\n", "let v = [\n  1, 2, 3,\n]\n");
    let names = (0..14).map(|i| format!("ingredient_{i}")).collect::<Vec<_>>();
    let lines: String = names.iter().map(|n| format!("  {n},\n")).collect();
    check(&format!("soup s = average({})\n", names.join(",")), &format!("soup s = average(\n{lines})\n"));
    check("let c = a\nand b\nor c\n", "let c = a\n  and b\n  or c\n");
}

#[test]
fn assertions_docs_and_operators() {
    check(
        "##doc\n##  two\nassert a<=4*-b ,\n\"why\"\nassert not(x==1)or y of z<2\n",
        "## doc\n##  two\nassert a <= 4 * -b, \"why\"\nassert not (x == 1) or y of z < 2\n",
    );
    let why = "w".repeat(90);
    check(&format!("assert a <= 4, \"{why}\"\n"), &format!("assert a <= 4,\n  \"{why}\"\n"));
    check(
        "budget {\n tokens<=2B\n flops <= 1e24 flops}\n",
        "budget {\n  tokens <= 2B\n  flops <= 1e24 flops\n}\n",
    );
}

#[test]
fn broken_parts_stay_as_they_are() {
    check(
        "stage s {\nlr   =   ( 1\n  tokens=5B\n  x  =  5   GB\n}\nlet y=1\n",
        "stage s {\n  lr   =   ( 1\n  tokens = 5B\n  x  =  5   GB\n}\nlet y = 1\n",
    );
    check("stage s {\n   a=1\nstage t {\n   a=1\n}\n", "stage s {\n   a=1\nstage t {\n  a = 1\n}\n");
    check("@@\n}\n  \"\n", "@\n@\n}\n\"\n");
    // Without its comma the first entry would go on.
    let joined = "stage s {\nlr = 0 then hold,\n  then linear(to: 0)\n}\n";
    check(joined, joined);
    // Nor is one that nothing readable stands beside.
    check("stage s {\ndata_seed , = 1\n}\n", "stage s {\n  data_seed , = 1\n}\n");
    check(
        "stage s {\n# c\n lr  = 1\n # d\n  data_seed , = 1\n# e\n}\n",
        "stage s {\n  # c\n  lr = 1\n  # d\n  data_seed , = 1\n  # e\n}\n",
    );
    check("", "");
    check("\n\n", "");
}

#[test]
fn line_ends_are_kept() {
    check("let  a=1\r\nlet b = \"x\"\r\n", "let a = 1\r\nlet b = \"x\"\r\n");
}
