"""Every capability of `midc lsp`, asked as VS Code asks (the client profile of pytest-lsp).

Run by lsp.sh, which pins what this needs.
"""

import os
import pathlib

import pytest
import pytest_lsp
from lsprotocol import types as t
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities

HERE = pathlib.Path(__file__).parent
TEXT = (HERE / "demo.curriculum").read_text()
URI = (HERE / "demo.curriculum").as_uri()
SOURCES = (HERE / "demo_sources.curriculum").as_uri()


@pytest_lsp.fixture(config=ClientServerConfig(server_command=[os.environ["MIDC"], "lsp"]))
async def client(lsp_client: LanguageClient):
    @lsp_client.feature("client/registerCapability")
    def registered(_params):
        return None

    @lsp_client.feature("workspace/inlayHint/refresh")
    def refreshed(_params):
        return None

    await lsp_client.initialize_session(
        t.InitializeParams(
            capabilities=client_capabilities("visual-studio-code"),
            workspace_folders=[t.WorkspaceFolder(uri=HERE.as_uri(), name="editors")],
        )
    )
    yield
    await lsp_client.shutdown_session()


def position(what: str, nth: int = 0, text: str = TEXT) -> t.Position:
    """Where the nth `what` begins; the text is ASCII, so a column is a column in any encoding."""
    offset = -1
    for _ in range(nth + 1):
        offset = text.index(what, offset + 1)
    line = text.count("\n", 0, offset)
    return t.Position(line=line, character=offset - (text.rfind("\n", 0, offset) + 1))


DOCUMENT = t.TextDocumentIdentifier(uri=URI)
WHOLE = t.Range(start=t.Position(line=0, character=0), end=t.Position(line=999, character=0))


async def opened(client: LanguageClient, text: str = TEXT):
    client.text_document_did_open(
        t.DidOpenTextDocumentParams(
            text_document=t.TextDocumentItem(uri=URI, language_id="curriculum", version=1, text=text)
        )
    )
    await client.wait_for_notification(t.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    return client.diagnostics.get(URI, [])


CLEAN = TEXT.replace("= 4k\n", "= 4Ki\n")


async def test_diagnostics_with_code_page_and_cure(client: LanguageClient):
    found = await opened(client)
    decimal = next(d for d in found if d.code == "decimal_context")
    assert decimal.severity == t.DiagnosticSeverity.Error
    assert decimal.source == "midc"
    page = pathlib.Path(decimal.code_description.href.removeprefix("file://"))
    assert page.read_text().startswith("# E0652")
    assert decimal.range.start == position("4k")
    actions = await client.text_document_code_action_async(
        t.CodeActionParams(
            text_document=DOCUMENT,
            range=decimal.range,
            context=t.CodeActionContext(diagnostics=[decimal]),
        )
    )
    fix = next(a for a in actions if "4Ki" in a.title)
    assert fix.kind == t.CodeActionKind.QuickFix
    edit = fix.edit.document_changes[0]
    assert (edit.text_document.uri, edit.text_document.version) == (URI, 1)
    client.text_document_did_change(
        t.DidChangeTextDocumentParams(
            text_document=t.VersionedTextDocumentIdentifier(uri=URI, version=2),
            content_changes=[
                t.TextDocumentContentChangePartial(range=edit.edits[0].range, text=edit.edits[0].new_text)
            ],
        )
    )
    await client.wait_for_notification(t.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    assert not client.diagnostics[URI]


async def test_related_places_and_tags(client: LanguageClient):
    text = CLEAN.replace("1024 seqs", "4Mi tokens").replace("context   = 4Ki", "context   = 3000")
    found = await opened(client, text + "\nlet idle = 1\n")
    whole = next(d for d in found if d.code == "E0504")
    assert any("context" in r.message or r.location.uri == URI for r in whole.related_information)
    found = await reopened(client, CLEAN + "\nlet idle = 1\n")
    unused = next(d for d in found if d.code == "unused_let")
    assert list(unused.tags) == [t.DiagnosticTag.Unnecessary]


async def reopened(client: LanguageClient, text: str):
    client.text_document_did_change(
        t.DidChangeTextDocumentParams(
            text_document=t.VersionedTextDocumentIdentifier(uri=URI, version=9),
            content_changes=[t.TextDocumentContentChangeWholeDocument(text=text)],
        )
    )
    await client.wait_for_notification(t.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    return client.diagnostics.get(URI, [])


async def test_fix_all(client: LanguageClient):
    await opened(client, CLEAN + "## nothing follows\n")
    actions = await client.text_document_code_action_async(
        t.CodeActionParams(
            text_document=DOCUMENT,
            range=WHOLE,
            context=t.CodeActionContext(diagnostics=[], only=["source.fixAll"]),
        )
    )
    assert [a.kind for a in actions] == ["source.fixAll.midc"]
    assert "\n# nothing follows\n" in actions[0].edit.document_changes[0].edits[0].new_text


async def test_hover(client: LanguageClient):
    await opened(client, CLEAN)

    async def says(what: str, nth: int = 0) -> str:
        hover = await client.text_document_hover_async(
            t.HoverParams(text_document=DOCUMENT, position=position(what, nth, CLEAN))
        )
        return hover.contents.value

    assert "50B tokens = 11,921 steps of 4Mi" in await says("tokens    = total_tokens")
    assert "read 1.9 times" in await says("math = rest")
    assert "Here: 15%" in await says("rest")
    assert "6e-5 → 0 over 50B tokens" in await says("linear")


async def test_completion(client: LanguageClient):
    text = CLEAN.replace("data_seed = 1", "data_seed = 1\n  ")
    await opened(client, text)
    place = position("data_seed = 1", 0, text)
    found = await client.text_document_completion_async(
        t.CompletionParams(
            text_document=DOCUMENT, position=t.Position(line=place.line + 1, character=2)
        )
    )
    labels = {c.label for c in found}
    assert {"attention", "rope", "eval", "gate"} <= labels
    assert not {"lr", "batch", "mix"} & labels
    gate = next(c for c in found if c.label == "gate")
    assert gate.insert_text_format == t.InsertTextFormat.Snippet


async def test_signature_help(client: LanguageClient):
    await opened(client, CLEAN)
    place = position("linear(to: 0", 0, CLEAN)
    help_ = await client.text_document_signature_help_async(
        t.SignatureHelpParams(
            text_document=DOCUMENT, position=t.Position(line=place.line, character=place.character + 11)
        )
    )
    assert help_.signatures[0].label.startswith("linear(to: ")
    assert help_.active_parameter == 0


async def test_definition_references_highlight_across_files(client: LanguageClient):
    await opened(client, CLEAN)
    at = position("math = rest", 0, CLEAN)
    target = await client.text_document_definition_async(
        t.DefinitionParams(text_document=DOCUMENT, position=at)
    )
    assert target.uri == SOURCES and target.range.start.line == 6
    places = await client.text_document_references_async(
        t.ReferenceParams(
            text_document=DOCUMENT, position=at, context=t.ReferenceContext(include_declaration=True)
        )
    )
    assert {p.uri for p in places} == {URI, SOURCES}
    lit = await client.text_document_document_highlight_async(
        t.DocumentHighlightParams(text_document=DOCUMENT, position=position("quality {", 0, CLEAN))
    )
    assert [h.kind for h in lit] == [t.DocumentHighlightKind.Write, t.DocumentHighlightKind.Read]


async def test_rename(client: LanguageClient):
    await opened(client, CLEAN)
    at = position("math = rest", 0, CLEAN)
    prepared = await client.text_document_prepare_rename_async(
        t.PrepareRenameParams(text_document=DOCUMENT, position=at)
    )
    assert prepared.placeholder == "math"
    edit = await client.text_document_rename_async(
        t.RenameParams(text_document=DOCUMENT, position=at, new_name="numbers")
    )
    assert {c.text_document.uri for c in edit.document_changes} == {URI, SOURCES}
    with pytest.raises(Exception, match="not a name"):
        await client.text_document_rename_async(
            t.RenameParams(text_document=DOCUMENT, position=at, new_name="5")
        )


async def test_symbols(client: LanguageClient):
    await opened(client, CLEAN)
    outline = await client.text_document_document_symbol_async(
        t.DocumentSymbolParams(text_document=DOCUMENT)
    )
    assert [s.name for s in outline] == ["s", "lints", "total_tokens", "base", "quality", "anneal"]
    found = await client.workspace_symbol_async(t.WorkspaceSymbolParams(query="mat"))
    assert [(s.name, s.location.uri) for s in found] == [("math", SOURCES)]


async def test_folding_and_selection(client: LanguageClient):
    await opened(client, CLEAN)
    folds = await client.text_document_folding_range_async(t.FoldingRangeParams(text_document=DOCUMENT))
    assert position("lints {", 0, CLEAN).line in {f.start_line for f in folds}
    ranges = await client.text_document_selection_range_async(
        t.SelectionRangeParams(text_document=DOCUMENT, positions=[position("85%", 0, CLEAN)])
    )
    steps = 0
    step = ranges[0]
    while step:
        steps += 1
        step = step.parent
    assert steps >= 4


async def test_links(client: LanguageClient):
    await opened(client, CLEAN)
    links = await client.text_document_document_link_async(t.DocumentLinkParams(text_document=DOCUMENT))
    assert [link.target for link in links] == [SOURCES]


async def test_inlay_hints(client: LanguageClient):
    await opened(client, CLEAN)
    hints = await client.text_document_inlay_hint_async(
        t.InlayHintParams(text_document=DOCUMENT, range=WHOLE)
    )
    labels = [h.label for h in hints]
    assert "= 11,921 steps of 4Mi" in labels
    assert "= 15%" in labels
    assert "read 1.9 times" in labels
    client.workspace_did_change_configuration(
        t.DidChangeConfigurationParams(settings={"midc": {"inlayHints": {"steps": False}}})
    )
    hints = await client.text_document_inlay_hint_async(
        t.InlayHintParams(text_document=DOCUMENT, range=WHOLE)
    )
    assert "= 11,921 steps of 4Mi" not in [h.label for h in hints]


async def test_semantic_tokens(client: LanguageClient):
    await opened(client, CLEAN)
    full = await client.text_document_semantic_tokens_full_async(
        t.SemanticTokensParams(text_document=DOCUMENT)
    )
    assert len(full.data) % 5 == 0 and len(full.data) > 5 * 40
    at = position("mix quality", 0, CLEAN)
    part = await client.text_document_semantic_tokens_range_async(
        t.SemanticTokensRangeParams(
            text_document=DOCUMENT,
            range=t.Range(start=at, end=t.Position(line=at.line + 1, character=0)),
        )
    )
    assert len(part.data) == 10


async def test_formatting(client: LanguageClient):
    text = CLEAN.replace("s.math = rest", "s.math=rest").replace("lr         = 6e-5", "lr=6e-5")
    await opened(client, text)
    options = t.FormattingOptions(tab_size=2, insert_spaces=True)
    edits = await client.text_document_formatting_async(
        t.DocumentFormattingParams(text_document=DOCUMENT, options=options)
    )
    assert sorted(e.new_text.strip() for e in edits) == ["lr         = 6e-5", "s.math = rest"]
    at = position("s.math=rest", 0, text)
    edits = await client.text_document_range_formatting_async(
        t.DocumentRangeFormattingParams(
            text_document=DOCUMENT, range=t.Range(start=at, end=at), options=options
        )
    )
    assert [e.new_text.strip() for e in edits] == ["s.math = rest"]


async def test_code_lenses_and_commands(client: LanguageClient):
    await opened(client, CLEAN)
    lenses = await client.text_document_code_lens_async(t.CodeLensParams(text_document=DOCUMENT))
    assert [lens.command.title for lens in lenses] == ["plan", "plot", "rehearse"]
    drawn = await client.workspace_execute_command_async(
        t.ExecuteCommandParams(command="midc.showPlan", arguments=[URI])
    )
    drawn = drawn if isinstance(drawn, dict) else drawn._asdict()
    assert drawn["svg"].startswith("<svg") and drawn["errors"] == 0
