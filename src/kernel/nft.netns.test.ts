import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { after, test } from 'node:test';
import { isWeftError } from '../base/errors.ts';
import { netnsInode } from './netns.ts';
import { applyRuleset, loadLibrary } from './nft.ts';
import { listRuleset, renderRuleset } from './nft-list.ts';
import { openDescriptors, ScratchNamespaces } from './testing/scratch.ts';

const scratch = new ScratchNamespaces('nft');
after(() => scratch.remove());

const nft = (ns: string, ...args: string[]): string =>
  execFileSync('ip', ['netns', 'exec', path.basename(ns), 'nft', ...args], { encoding: 'utf8' });

test('a ruleset is applied in its namespace only, and listed as the nft program lists it', () => {
  const one = scratch.create();
  const two = scratch.create();
  applyRuleset(
    one,
    'add table inet t { set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 } }; chain c { type filter hook input priority 0; ip saddr @s drop; }; }',
  );
  assert.deepEqual(
    listRuleset(one, 'table inet t'),
    JSON.parse(nft(one, '-j', 'list', 'table', 'inet', 't')),
  );
  assert.deepEqual(listRuleset(one, 'chains'), JSON.parse(nft(one, '-j', 'list', 'chains')));
  assert.equal(listRuleset(two, 'table inet t'), undefined);
  assert.equal(listRuleset(one, 'set inet t x'), undefined);
  assert.equal(nft(two, 'list', 'ruleset'), '');
});

test('a refusal is all or nothing, and says what nft says', () => {
  const ns = scratch.create();
  assert.throws(
    () => applyRuleset(ns, 'add table inet t\nadd chain inet t c\nadd rule inet t c jump nowhere'),
    (error) =>
      isWeftError(error, 'WEFT_NFT_REJECTED') &&
      /No such file or directory/.test(error.message) &&
      error.message.includes(ns),
  );
  assert.throws(
    () => applyRuleset(ns, 'add rubbish'),
    (e) => isWeftError(e, 'WEFT_NFT_REJECTED') && /syntax error/.test(e.message),
  );
  assert.equal(nft(ns, 'list', 'ruleset'), '');
});

test('tables with flags, which nft 1.0.6 lists wrong, and whatever is listed with them', () => {
  const ns = scratch.create();
  const spec = (flags: string): string =>
    `add table inet t${flags} { set s { type ipv4_addr; elements = { 10.0.0.1 }; }; map m { type ipv4_addr : verdict; }; counter n { }; chain d { drop; }; chain c { type filter hook input priority 0; ip saddr @s jump d; }; }`;
  applyRuleset(ns, `add table ip other { chain c { accept; }; }\n${spec('')}`);
  const without = listRuleset(ns, 'table inet t')!.nftables;
  applyRuleset(ns, 'add table inet t { flags dormant; }');
  const table = { table: { family: 'inet', name: 't', handle: 2, flags: ['dormant'] } };
  const [, ...listed] = listRuleset(ns, 'table inet t')!.nftables;
  const kinds = (entries: object[]): string[] => entries.map((entry) => JSON.stringify(entry)).sort();
  assert.deepEqual(kinds(listed), kinds(without.slice(2)));
  assert.deepEqual(listRuleset(ns, 'table inet t')!.nftables[0], table);
  assert.deepEqual(listRuleset(ns, 'tables')!.nftables[1], table);
  assert.equal(listRuleset(ns, 'ruleset')!.nftables.length, listed.length + 1 + 3);
  assert.equal(listRuleset(ns, 'table ip other')!.nftables.length, 4);
});

test('a listing cannot be made to change anything', () => {
  const ns = scratch.create();
  applyRuleset(ns, 'add table inet t');
  for (const what of ['table inet t; flush ruleset', 'ruleset\nflush ruleset', '', 'rules']) {
    assert.throws(
      () => listRuleset(ns, what),
      (error) => isWeftError(error, 'WEFT_BAD_CONFIG'),
      what,
    );
  }
  assert.match(nft(ns, 'list', 'ruleset'), /table inet t/);
});

test('a namespace that is not there', () => {
  assert.throws(
    () => applyRuleset(scratch.path(), 'add table inet t'),
    (e) => isWeftError(e, 'WEFT_NETNS_NOT_FOUND'),
  );
});

test('rendering happens nowhere that can be seen', () => {
  const home = netnsInode('');
  const listing = renderRuleset('add table inet rendered', 'table inet rendered');
  assert.ok(listing.nftables.some((entry) => 'table' in entry));
  assert.throws(
    () => renderRuleset('add rubbish', 'ruleset'),
    (e) => isWeftError(e, 'WEFT_NFT_REJECTED'),
  );
  assert.equal(netnsInode(''), home);
  assert.equal(listRuleset('', 'table inet rendered'), undefined);
});

test('without the library: an error that names the package', () => {
  assert.throws(
    () => loadLibrary('libnftables.so.not-there'),
    (error) => isWeftError(error, 'WEFT_KERNEL_FEATURE_MISSING') && /libnftables1/.test(error.hint),
  );
});

test('a thousand calls leave no descriptor and no memory behind', () => {
  const ns = scratch.create();
  applyRuleset(ns, 'add table inet t { set s { type ipv4_addr; elements = { 10.0.0.1 }; }; }');
  const round = (): void => {
    for (let i = 0; i < 500; i++) {
      applyRuleset(ns, `add element inet t s { 10.1.0.${i & 255} }`);
      listRuleset(ns, 'chains');
      try {
        applyRuleset(ns, 'add rubbish');
      } catch {}
    }
  };
  round();
  const descriptors = openDescriptors();
  const memory = process.memoryUsage.rss();
  round();
  assert.equal(openDescriptors(), descriptors);
  assert.ok(
    process.memoryUsage.rss() - memory < 16 << 20,
    `${(process.memoryUsage.rss() - memory) >> 20} MiB more`,
  );
});
