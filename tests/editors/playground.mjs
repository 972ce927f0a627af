// The playground page from file:// in headless Chromium: type an error, see it; fix it, see the
// figure move. Run by playground.sh. Leaves pictures in $SHOTS.
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { NODE_DIR, PAGE, CHROMIUM, SHOTS } = process.env;
const { chromium } = createRequire(join(NODE_DIR, 'package.json'))('playwright-core');
mkdirSync(SHOTS, { recursive: true });
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
let failed = false;
const check = (holds, what) => {
  console.log(`${holds ? 'ok' : 'FAIL'}: ${what}`);
  failed ||= !holds;
};

async function open(options) {
  const context = await browser.newContext({ offline: true, ...options });
  const page = await context.newPage();
  page.on('pageerror', (e) => check(false, `an exception in the page: ${e.message}`));
  page.on('request', (r) => r.url().startsWith('file:') || r.url().startsWith('data:') || check(false, `a request to ${r.url()}`));
  await page.goto(pathToFileURL(PAGE).href);
  await page.waitForSelector('body[data-ready]', { timeout: 20000 });
  return page;
}
const shot = (page, name) => page.screenshot({ path: join(SHOTS, `playground-${name}.png`) });

const page = await open({ viewport: { width: 1360, height: 900 }, colorScheme: 'light' });
check((await page.textContent('#note')) === 'no errors', 'the first example has no errors');
const figure = () => page.$eval('#figure', (f) => f.innerHTML);
const caret = (what, at) => page.$eval('#text', (t, [what, at]) => {
  const from = t.value.indexOf(what) + at;
  t.focus();
  t.setSelectionRange(from, from);
}, [what, at]);
const before = await figure();
check(before.includes('<svg'), 'the plan is drawn');
check((await page.textContent('#shown')).includes('steps of 2Mi'), 'derived numbers stand behind the lines');
await shot(page, 'light-wide');

await caret('tokens    = 100B', 'tokens    = 100B'.length);
await page.keyboard.type('B');
check((await page.$$('#problems .problem.error')).length > 0, 'a typed error is listed');
check((await page.$$('#shown .wrong')).length > 0, 'and underlined');
check((await page.$('#figure.stale svg')) !== null, 'the figure stays, greyed');
await shot(page, 'light-error');
await page.keyboard.press('Backspace');
await page.keyboard.press('Backspace');
await page.keyboard.press('Backspace');
await page.keyboard.type('5B');
check((await page.$$('#problems .problem.error')).length === 0, 'mended, the error goes');
check((await page.$('#figure.stale')) === null && (await figure()) !== before, 'and the figure has moved');

await caret('context   = 16Ki', 'context   = 16K'.length);
await page.keyboard.press('Delete');
await page.keyboard.press('Backspace');
await page.keyboard.type('k');
await page.click('#problems button:has-text("16Ki")');
check((await page.inputValue('#text')).includes('context   = 16Ki'), 'a fix is applied by its button');

const box = await page.$eval('#text', (t) => {
  const at = t.value.indexOf('mix better');
  const line = t.value.slice(0, at).split('\n').length - 1;
  document.getElementById('editor').scrollTo(0, line * 20 - 200);
  const r = t.getBoundingClientRect();
  return { x: r.left + 10 + 7 * 8, y: r.top + 10 + line * 20 + 10 };
});
await page.mouse.move(box.x, box.y);
await page.waitForSelector('#hover:not([hidden])', { timeout: 3000 });
check((await page.textContent('#hover')).includes('57%') || (await page.textContent('#hover')).includes('42%'), 'hover tells the flat shares of a mix');
await shot(page, 'light-hover');

await caret('  data_seed = 2', '  data_seed = 2'.length);
await page.keyboard.press('Enter');
await page.keyboard.type('pack');
check((await page.textContent('#complete')).includes('packing'), 'completion offers fields');
await shot(page, 'light-completion');
await page.keyboard.press('Tab');
check((await page.inputValue('#text')).includes('  packing   = '), 'and takes one');

await page.selectOption('#examples', 'olmo2_13b');
check((await page.$$('#problems .problem.error')).length === 0 && (await figure()).includes('<svg'), 'a recipe that uses another file is drawn');
const names = await page.$$eval('#examples option', (o) => o.map((x) => x.value));
let wrong = [];
for (const name of names) {
  await page.selectOption('#examples', name);
  if ((await page.$$('#problems .problem.error')).length) wrong.push(name);
}
check(wrong.length === 0, `all ${names.length} examples check (${wrong.join(', ') || 'none has an error'})`);
await page.click('#format');

const dark = await open({ viewport: { width: 1360, height: 900 }, colorScheme: 'dark' });
await shot(dark, 'dark-wide');
const narrow = await open({ viewport: { width: 400, height: 860 }, colorScheme: 'dark', isMobile: true });
const overflow = await narrow.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
check(overflow <= 0, 'a narrow page does not scroll sideways');
await shot(narrow, 'dark-narrow');
const light = await open({ viewport: { width: 400, height: 860 }, colorScheme: 'light', isMobile: true });
await light.screenshot({ path: join(SHOTS, 'playground-light-narrow.png'), fullPage: true });

await browser.close();
process.exit(failed ? 1 : 0);
