import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { openKernel } from '../../kernel/kernel.ts';
import { ScratchNamespaces, until } from '../../kernel/testing/scratch.ts';
import type { Kernel, KernelEvent } from '../../kernel/types.ts';
import type { NodeFilter } from '../../state/fabric-plan.ts';
import { NodeFilterReconciler } from './reconcile.ts';
import { FILTER, inside, nft } from './testing/small-net.ts';

const scratch = new ScratchNamespaces('nftrec');
let kernel: Kernel;
before(async () => {
  kernel = await openKernel();
});
after(async () => {
  await kernel[Symbol.asyncDispose]();
  scratch.remove();
});

const reconcilerOf = (ns: string): NodeFilterReconciler => new NodeFilterReconciler(kernel, ns, silentLogger);

/** A namespace with the tables in it. */
async function prepared(filter: NodeFilter = FILTER): Promise<{ ns: string; rec: NodeFilterReconciler }> {
  const ns = scratch.create();
  const rec = reconcilerOf(ns);
  await rec.apply(filter);
  return { ns, rec };
}

/** Handles of all rules: a rule that was made anew has another. */
const ruleHandles = (ns: string): string[] =>
  inside(ns, 'nft', '-a', 'list', 'ruleset').match(/# handle \d+/g) ?? [];
const set = (ns: string, name: string): string =>
  /elements = \{ ([^}]*) \}/
    .exec(inside(ns, 'nft', 'list', 'set', 'inet', 'weft', name))?.[1]
    ?.replace(/\s+/g, ' ') ?? '';

test('from nothing to everything, and then nothing more to do', async () => {
  const ns = scratch.create();
  const rec = reconcilerOf(ns);
  assert.deepEqual(await rec.verify(), [], 'nothing is desired yet');
  assert.deepEqual(await rec.counters(), []);
  assert.deepEqual((await rec.apply(FILTER)).changed, [
    'table inet weft was missing',
    'table arp weft was missing',
  ]);
  assert.deepEqual((await rec.apply(FILTER)).changed, []);
  assert.deepEqual(await rec.verify(), []);
  assert.deepEqual(
    (await rec.counters()).map(({ counter }) => counter),
    [
      'inet weft forged_source',
      'inet weft pod_link_local',
      'inet weft encap_from_pod',
      'inet weft encap_from_stranger',
      'inet weft masqueraded',
      'arp weft pod_arp',
    ],
  );
});

test('a restarted agent adopts what is there without a single transaction', async () => {
  const { ns } = await prepared();
  const events: KernelEvent[] = [];
  const watch = await kernel.watch(ns, { kinds: [], nft: true }, (batch) => events.push(...batch));
  const second = reconcilerOf(ns);
  assert.deepEqual((await second.apply(FILTER)).changed, []);
  // A change of ours that is seen proves that none before it was missed.
  await second.apply({ ...FILTER, vteps: [...FILTER.vteps, '10.9.0.9'] });
  await until('the event arrives', () => events.length > 0);
  await watch.close();
  assert.equal(events.length, 1);
  const [event] = events;
  assert.ok(event?.type === 'nft' && event.own);
  assert.deepEqual(event.tables, ['inet weft']);
});

describe('what changes in the cluster changes elements, and no rule', () => {
  const cases: Array<[string, Partial<NodeFilter>, string, string]> = [
    ['a node joins', { vteps: ['10.9.0.2', '10.9.0.5', 'fd09::2'] }, 'vteps4', '10.9.0.2, 10.9.0.5'],
    ['a node has gone', { vteps: ['fd09::2'] }, 'vteps4', ''],
    ['a node changes its address', { vteps: ['10.9.0.2', 'fd09::77'] }, 'vteps6', 'fd09::77'],
    ['another pod CIDR', { podCIDRs: ['10.78.0.0/24', 'fd77::/64'] }, 'pods4', '10.78.0.0/24'],
    ['no IPv6 pods', { podCIDRs: ['10.77.0.0/24'] }, 'pods6', ''],
    [
      'exclusions that overlap and adjoin',
      { noMasquerade: ['10.0.0.0/8', '10.77.0.0/16', '11.0.0.0/8', '192.168.1.1/32'] },
      'no_masquerade4',
      '10.0.0.0/7, 192.168.1.1',
    ],
    ['no masquerading at all within IPv4', { noMasquerade: ['0.0.0.0/0'] }, 'no_masquerade4', '0.0.0.0/0'],
  ];
  for (const [what, change, name, elements] of cases) {
    test(what, async () => {
      const { ns, rec } = await prepared();
      const handles = ruleHandles(ns);
      const { changed } = await rec.apply({ ...FILTER, ...change });
      assert.ok(
        changed.length > 0 && changed.every((text) => text.startsWith('set inet weft ')),
        changed.join('\n'),
      );
      assert.equal(set(ns, name), elements);
      assert.deepEqual(ruleHandles(ns), handles);
      assert.deepEqual(await rec.verify(), []);
      assert.ok((await rec.apply(FILTER)).changed.length > 0);
      assert.deepEqual(await reconcilerOf(ns).apply(FILTER), { changed: [] });
    });
  }

  test('thousands of nodes', async () => {
    const { rec } = await prepared();
    const ips = Array.from({ length: 3000 }, (_, i) => `10.100.${i >> 8}.${i & 255}`);
    const many = { ...FILTER, vteps: ips, noMasquerade: ips.filter((_, i) => i % 2).map((ip) => `${ip}/32`) };
    await rec.apply(many);
    assert.deepEqual(await rec.apply(many), { changed: [] });
    const { changed } = await rec.apply({ ...many, vteps: ips.slice(1) });
    assert.deepEqual(changed, ['set inet weft vteps4: 10.100.0.0 too many']);
  });
});

test('structure follows the options, in one transaction each', async () => {
  const { rec, ns } = await prepared();
  const { encapPort, ...direct } = FILTER;
  assert.deepEqual(
    (await rec.apply({ ...direct, vteps: [] })).changed.filter((text) =>
      text.endsWith(': does not belong there'),
    ),
    [
      'chain inet weft input: does not belong there',
      'chain inet weft encapsulated: does not belong there',
      'chain inet weft guard: does not belong there',
    ],
  );
  assert.deepEqual(await rec.verify(), []);
  await rec.apply({ ...FILTER, masquerade: false });
  assert.doesNotMatch(inside(ns, 'nft', 'list', 'ruleset'), /masquerade /);
  await rec.apply({ ...FILTER, encapPort: 4789 });
  assert.match(
    inside(ns, 'nft', 'list', 'chain', 'inet', 'weft', 'input'),
    /udp dport 4789 jump encapsulated/,
  );
  assert.deepEqual(await rec.verify(), []);
});

describe('what somebody else does is named, put right, and nothing else is touched', () => {
  const table = 'inet weft';
  const cases: Array<[string, string[], RegExp[]]> = [
    [
      'flush a chain',
      [`flush chain ${table} prerouting`],
      [
        /^chain inet weft prerouting: rule "iifgroup 0x57e0 fib saddr .* jump forged" was missing$/,
        /^chain inet weft prerouting: rule "iifgroup 0x57e0 udp dport 8472 .* drop" was missing$/,
      ],
    ],
    [
      'flush the ruleset',
      ['flush ruleset'],
      [/^table inet weft was missing$/, /^table arp weft was missing$/],
    ],
    ['delete a table', ['delete table arp weft'], [/^table arp weft was missing$/]],
    [
      'a rule at the front',
      [`insert rule ${table} prerouting counter accept comment "mine"`],
      [/^chain inet weft prerouting: rule \d+ does not belong there: .*"mine"/],
    ],
    [
      'a rule in another chain twice',
      [
        `add rule ${table} postrouting tcp dport 80 accept`,
        `add rule ${table} postrouting tcp dport 80 accept`,
      ],
      [/^chain inet weft postrouting: rule \d+ does not/, /^chain inet weft postrouting: rule \d+ does not/],
    ],
    [
      'a policy',
      [`add chain ${table} input { policy drop ; }`],
      [/^chain inet weft input: the policy was drop instead of accept$/],
    ],
    [
      'a table put to sleep',
      [`add table ${table} { flags dormant ; }`],
      [/^table inet weft: was \{"flags":\["dormant"\]\} instead of/],
    ],
    [
      'an element more',
      [`add element ${table} vteps4 { 6.6.6.6 }`],
      [/^set inet weft vteps4: 6\.6\.6\.6 too many$/],
    ],
    [
      'an element less, one in its place',
      [`delete element ${table} vteps6 { fd09::2 }`, `add element ${table} vteps6 { fd09::3 }`],
      [/^set inet weft vteps6: fd09::2 missing, fd09::3 too many$/],
    ],
    [
      'an interval changed',
      [`flush set ${table} pods4`, `add element ${table} pods4 { 10.77.0.0/25 }`],
      [/^set inet weft pods4: 10\.77\.0\.0\/24 missing, 10\.77\.0\.0\/25 too many$/],
    ],
    ['a set emptied', [`flush set ${table} no_masquerade6`], [/^set inet weft no_masquerade6: .* missing$/]],
    [
      'a chain of their own, with a jump to it',
      [
        `add chain ${table} theirs`,
        `add rule ${table} theirs drop`,
        `insert rule ${table} input jump theirs`,
      ],
      [/^chain inet weft input: rule/, /^chain inet weft theirs: does not belong there$/],
    ],
    [
      'a map, a set and a counter of their own',
      [
        `add map ${table} m { type ipv4_addr : verdict ; }`,
        `add set ${table} s { type mark ; }`,
        `add counter ${table} c`,
      ],
      [/^set inet weft s: does/, /^map inet weft m: does/, /^counter inet weft c: does/],
    ],
    [
      'a chain gone',
      [`flush chain ${table} input`, `delete chain ${table} input`],
      [/^chain inet weft input was missing$/],
    ],
    [
      'another hook',
      [
        `flush chain ${table} guard`,
        `delete chain ${table} guard`,
        `add chain ${table} guard { type filter hook output priority 0 ; }`,
      ],
      [/^chain inet weft guard: was .*output.* instead of .*postrouting/],
    ],
    [
      'a set of another type',
      [
        `flush chain ${table} encapsulated`,
        `delete set ${table} vteps4`,
        `add set ${table} vteps4 { type ipv6_addr ; }`,
      ],
      [
        /^set inet weft vteps4: was/,
        /^chain inet weft encapsulated: rule/,
        /^chain inet weft encapsulated: rule/,
        /^chain inet weft encapsulated: rule/,
        /^chain inet weft encapsulated: rule/,
      ],
    ],
    [
      'a counter gone',
      [`flush chain ${table} forged`, `delete counter ${table} forged_source`],
      [
        /^counter inet weft forged_source was missing$/,
        /^chain inet weft forged: rule/,
        /^chain inet weft forged: rule/,
      ],
    ],
  ];
  for (const [what, commands, drifts] of cases) {
    test(what, async () => {
      const { ns, rec } = await prepared();
      nft(ns, 'add table inet foreign', 'add chain inet foreign x', 'add rule inet foreign x drop');
      const foreign = inside(ns, 'nft', '-a', 'list', 'table', 'inet', 'foreign');
      nft(ns, ...commands);
      const found = (await rec.verify()).map(({ message }) => message);
      assert.equal(found.length, drifts.length, found.join('\n'));
      drifts.forEach((expected, i) => {
        assert.match(found[i]!, expected);
      });
      assert.deepEqual((await rec.apply(FILTER)).changed, found);
      assert.deepEqual(await rec.verify(), []);
      assert.deepEqual(await reconcilerOf(ns).apply(FILTER), { changed: [] }, 'equal to tables made anew');
      if (!commands.includes('flush ruleset')) {
        assert.equal(inside(ns, 'nft', '-a', 'list', 'table', 'inet', 'foreign'), foreign);
      }
    });
  }

  test('rules of the chains that nobody touched stay the rules they were', async () => {
    const { ns, rec } = await prepared();
    const before = inside(ns, 'nft', '-a', 'list', 'chain', 'inet', 'weft', 'postrouting');
    nft(ns, `flush chain ${table} prerouting`, `add rule ${table} input accept`);
    await rec.apply(FILTER);
    assert.equal(inside(ns, 'nft', '-a', 'list', 'chain', 'inet', 'weft', 'postrouting'), before);
  });

  test('counts survive repairs', async () => {
    const { ns, rec } = await prepared();
    nft(ns, `delete table arp weft`, `add rule ${table} input accept`);
    inside(ns, 'nft', 'reset', 'counters');
    nft(ns, `flush chain ${table} postrouting`, `flush chain ${table} encapsulated`);
    const handle = /counter masqueraded \{ # handle (\d+)/.exec(
      inside(ns, 'nft', '-a', 'list', 'table', 'inet', 'weft'),
    );
    await rec.apply(FILTER);
    const now = /counter masqueraded \{ # handle (\d+)/.exec(
      inside(ns, 'nft', '-a', 'list', 'table', 'inet', 'weft'),
    );
    assert.ok(handle);
    assert.deepEqual(now?.[1], handle[1]);
  });
});

test('many calls at once end as if made one after the other', async () => {
  const { rec, ns } = await prepared();
  await Promise.all([
    rec.apply({ ...FILTER, vteps: ['10.1.1.1'] }),
    rec.verify(),
    rec.apply({ ...FILTER, encapPort: 9000 }),
    rec.apply({ ...FILTER, vteps: ['10.1.1.2'] }),
    rec.apply(FILTER),
  ]);
  assert.deepEqual(await rec.verify(), []);
  assert.equal(set(ns, 'vteps4'), '10.9.0.2');
});

test('removed for good: no table of ours stays, and removing again is no error', async () => {
  const { ns, rec } = await prepared();
  nft(ns, 'add table inet foreign');
  await rec.remove();
  await rec.remove();
  assert.equal(inside(ns, 'nft', 'list', 'tables').trim(), 'table inet foreign');
  assert.deepEqual(await rec.verify(), []);
});
