import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { attachmentId, hostIfnameOf, macOf } from '../../attach/names.ts';
import { planAttachment } from '../../attach/plan-attachment.ts';
import { openKernel } from '../../kernel/kernel.ts';
import { ip, ipJson, ScratchNamespaces } from '../../kernel/testing/scratch.ts';
import type { Kernel } from '../../kernel/types.ts';
import type { Attachment, AttachPlan } from '../../state/attachment.ts';
import { attach, closeLinks, detach } from './attach.ts';
import { Reaper } from './reaper.ts';
import { observeHost, repair, unownedLinks, verify } from './repair.ts';
import { kernelIn } from './testing/kernel-in.ts';

const scratch = new ScratchNamespaces('attach');
let kernel: Kernel;
let node: string;

before(async () => {
  node = scratch.create();
  for (const sysctl of ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
    inNs(node, 'sysctl', '-qw', sysctl);
  // Connection tracking works only where a rule asks for it.
  inNs(
    node,
    'nft',
    'add table inet t; add chain inet t c { type filter hook prerouting priority 0; }; add rule inet t c ct state new accept',
  );
  for (const address of ['10.99.0.1/32', 'fd99::1/128']) ip(node, 'addr', 'add', address, 'dev', 'lo');
  kernel = kernelIn(await openKernel(), node);
});
after(async () => {
  await kernel[Symbol.asyncDispose]();
  scratch.remove();
});

function inNs(ns: string, ...command: string[]): string {
  return execFileSync('ip', ['netns', 'exec', path.basename(ns), ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

function pings(ns: string, address: string, ...options: string[]): boolean {
  const command = ['netns', 'exec', path.basename(ns), 'ping', '-c1', '-W2', '-n', ...options, address];
  return spawnSync('ip', command).status === 0;
}

/** Whether connection tracking knows the address. */
const tracked = (address: string): boolean =>
  ['ipv4', 'ipv6'].some((family) => inNs(node, 'conntrack', '-L', '-f', family).includes(`dst=${address} `));

let counter = 0;
async function pod(ips?: string[]): Promise<AttachPlan> {
  const n = ++counter;
  const netns = scratch.create();
  const id = attachmentId(`c${n}`, 'eth0');
  const attachment: Attachment = {
    id,
    containerId: `c${n}`,
    ifname: 'eth0',
    network: 'weft',
    netns,
    netnsInode: (await kernel.netnsInfo(netns)).inode,
    ips: ips ?? [`10.77.0.${n}/32`, `fd77::${n}/128`],
    mac: macOf(id),
    hostIfname: hostIfnameOf(id),
    mtu: 1400,
    createdAt: '2026-01-01T00:00:00.000Z',
  };
  return planAttachment(attachment);
}

const texts = async (plan: AttachPlan): Promise<string[]> => (await verify(kernel, plan)).map((d) => d.text);
const linkNames = (ns: string): unknown[] => ipJson(ns, 'link').map((link) => link.ifname);

test('two pods reach each other at once, over both families, at full MTU; `lo` is up', async () => {
  const [a, b] = [await pod(), await pod()];
  await attach(kernel, a);
  await attach(kernel, b);
  // The very first packets: nothing is resolved, no DAD is waited for.
  assert.ok(pings(a.attachment.netns, '10.77.0.2', '-M', 'do', '-s', '1372'), 'IPv4, 1400 bytes');
  assert.ok(pings(a.attachment.netns, 'fd77::2', '-M', 'do', '-s', '1352'), 'IPv6, 1400 bytes');
  assert.ok(!pings(a.attachment.netns, '10.77.0.2', '-M', 'do', '-s', '1373'), 'one byte more is too much');
  assert.ok(pings(node, '10.77.0.1') && pings(node, 'fd77::1'), 'the node reaches its pod');
  assert.ok(pings(a.attachment.netns, '10.99.0.1') && pings(a.attachment.netns, 'fd99::1'), 'and back');
  assert.ok(pings(a.attachment.netns, '127.0.0.1') && pings(a.attachment.netns, '::1'), 'loopback');
  assert.deepEqual(await texts(a), []);
  assert.deepEqual(await texts(b), []);
  const [link] = ipJson(node, 'link', 'show', a.link.name);
  assert.deepEqual(
    [link!.address, link!.mtu, link!.ifalias, link!.group],
    ['02:57:65:66:74:01', 1400, 'weft:c1/eth0', '22496'],
  );
});

test('pods with one family have nothing of the other', async () => {
  const v4 = await pod(['10.77.1.1/32']);
  const v6 = await pod(['fd77:1::1/128']);
  await attach(kernel, v4);
  await attach(kernel, v6);
  assert.deepEqual(await texts(v4), []);
  assert.deepEqual(await texts(v6), []);
  assert.equal(ip(v4.attachment.netns, '-6', 'addr', 'show', 'dev', 'eth0'), '');
  assert.equal(ip(v6.attachment.netns, '-4', 'addr', 'show', 'dev', 'eth0'), '');
  assert.match(ip(v6.attachment.netns, '-6', 'route'), /^default via fe80::1 dev eth0/m);
});

test('a sandbox with IPv6 switched off gets its address all the same', async () => {
  const plan = await pod();
  for (const scope of ['all', 'default'])
    inNs(plan.attachment.netns, 'sysctl', '-qw', `net.ipv6.conf.${scope}.disable_ipv6=1`);
  await attach(kernel, plan);
  assert.deepEqual(await texts(plan), []);
});

test('attaching again replaces a leftover; a foreign interface is a conflict, and stays', async () => {
  const plan = await pod();
  await attach(kernel, plan);
  await attach(kernel, plan);
  assert.deepEqual(await texts(plan), []);

  const taken = await pod();
  ip(taken.attachment.netns, 'link', 'add', 'eth0', 'type', 'bridge');
  await assert.rejects(attach(kernel, taken), { code: 'WEFT_ATTACH_CONFLICT' });
  assert.deepEqual(linkNames(taken.attachment.netns), ['lo', 'eth0']);
  assert.ok(!linkNames(node).includes(taken.link.name), 'nothing is left on the node');
});

test('a failure half-way leaves nothing behind', async () => {
  const gone = await pod();
  await kernel.netnsDelete(gone.attachment.netns);
  await assert.rejects(attach(kernel, gone), { code: 'WEFT_NETNS_NOT_FOUND' });

  // The sandbox refuses its last step: a gateway that is its own address.
  const plan = await pod();
  plan.pod.routes.push({ kind: 'route', dst: '192.0.2.0/24', via: '10.77.99.99', dev: 'eth0' });
  await assert.rejects(attach(kernel, plan), { code: 'WEFT_NETLINK_REFUSED', message: /192\.0\.2\.0\/24/ });
  for (const { link, attachment } of [gone, plan]) {
    assert.ok(!linkNames(node).includes(link.name));
    for (const cidr of attachment.ips) assert.ok(!ip(node, 'route').includes(cidr.split('/')[0]!));
  }
  assert.deepEqual(linkNames(plan.attachment.netns), ['lo']);
});

test('detach ends traffic at once, twice is no error, and the link goes soon', async () => {
  const [a, b] = [await pod(), await pod()];
  await attach(kernel, a);
  await attach(kernel, b);
  const [address4, address6] = b.attachment.ips.map((cidr) => cidr.split('/')[0]!) as [string, string];
  assert.ok(pings(a.attachment.netns, address4));
  const reaper = new Reaper(kernel, assert.ifError);
  await detach(kernel, [b.attachment]);
  reaper.schedule([address4, address6]);
  assert.ok(
    !ip(node, 'route').includes(address4) && !ip(node, '-6', 'route').includes(address6),
    'no route is left',
  );
  await detach(kernel, [b.attachment]);
  assert.ok(tracked(address4), 'established connections are remembered for now');
  await reaper.purged([address4, address6]);
  assert.ok(!tracked(address4) && !tracked(address6));
  await reaper.close();
  assert.ok(!linkNames(node).includes(b.link.name));
  assert.deepEqual(linkNames(b.attachment.netns), ['lo']);
  await detach(kernel, [b.attachment]);

  // The name is free at once, reaped or not.
  await attach(kernel, b);
  await detach(kernel, [b.attachment]);
  await attach(kernel, b);
  assert.deepEqual(await texts(b), []);
  assert.ok(pings(a.attachment.netns, address6));
});

test('every change by hand is seen, named and put right, in place where that is possible', async () => {
  const plan = await pod();
  await attach(kernel, plan);
  const host = plan.link.name;
  const { netns } = plan.attachment;
  const [v4, v6] = plan.attachment.ips.map((cidr) => cidr.split('/')[0]!) as [string, string];
  const index = (): unknown => ipJson(node, 'link', 'show', host)[0]!.ifindex;
  const born = index();
  const table: Array<{ hand: () => unknown; text: RegExp; anew?: boolean }> = [
    { hand: () => ip(node, 'route', 'del', v4), text: new RegExp(`^route ${v4}/32 dev ${host} is missing$`) },
    {
      hand: () => ip(node, '-6', 'route', 'del', v6),
      text: new RegExp(`^route ${v6}/128 dev ${host} is missing$`),
    },
    { hand: () => ip(node, 'neigh', 'del', v4, 'dev', host), text: /^neighbour .* is missing$/ },
    {
      hand: () =>
        ip(node, 'neigh', 'replace', v4, 'dev', host, 'lladdr', '02:00:00:00:00:09', 'nud', 'permanent'),
      text: /^neighbour .* is 02:00:00:00:00:09 permanent instead of /,
    },
    { hand: () => ip(node, 'link', 'set', host, 'down'), text: /^link weft\w+ is down$/ },
    { hand: () => ip(node, 'link', 'set', host, 'mtu', '1300'), text: /has mtu 1300 instead of 1400$/ },
    { hand: () => ip(node, 'link', 'set', host, 'group', '7'), text: /has group 7 instead of 22496$/ },
    {
      hand: () => ip(node, 'link', 'set', host, 'address', '02:00:00:00:00:07'),
      text: /has mac 02:00:00:00:00:07/,
    },
    { hand: () => ip(netns, 'route', 'del', 'default'), text: /^route 0\.0\.0\.0\/0 dev eth0 is missing$/ },
    { hand: () => ip(netns, 'addr', 'flush', 'dev', 'eth0'), text: /^address .* on eth0 is missing$/ },
    { hand: () => ip(netns, 'link', 'set', 'eth0', 'down'), text: /^link eth0 is down$/ },
    {
      hand: () => ip(netns, 'link', 'set', 'eth0', 'address', '02:00:00:00:00:08'),
      text: /^link eth0 has mac/,
    },
    { hand: () => ip(node, 'link', 'del', host), text: /^link weft\w+ is missing$/, anew: true },
    { hand: () => ip(netns, 'link', 'del', 'eth0'), text: /^link weft\w+ is missing$/, anew: true },
    {
      hand: () => {
        ip(node, 'link', 'set', host, 'down');
        ip(node, 'link', 'set', host, 'name', 'renamed0');
      },
      text: /^link weft\w+ is missing$/,
      anew: true,
    },
  ];
  for (const { hand, text, anew } of table) {
    const before = index();
    hand();
    const differences = await verify(kernel, plan);
    assert.ok(
      differences.some((d) => text.test(d.text)),
      `${text} in [${differences.map((d) => d.text).join('; ')}]`,
    );
    await repair(kernel, plan, differences);
    assert.deepEqual(await texts(plan), [], String(text));
    if (!anew) assert.equal(index(), before, `${text}: repaired in place`);
  }
  assert.notEqual(index(), born);
});

test('links of pods that nobody owns are found by group and alias, and only those', async () => {
  const [kept, lost] = [await pod(), await pod()];
  await attach(kernel, kept);
  await attach(kernel, lost);
  ip(node, 'link', 'add', 'foreign0', 'type', 'veth', 'peer', 'foreign1');
  const owned = new Set(linkNames(node) as string[]);
  owned.delete(lost.link.name);
  const unowned = unownedLinks(await observeHost(kernel), owned);
  assert.deepEqual(unowned, [lost.link.name]);
  await closeLinks(kernel, unowned);
  const reaper = new Reaper(kernel, assert.ifError);
  reaper.schedule([]);
  await reaper.close();
  assert.ok(!linkNames(node).includes(lost.link.name));
  assert.ok(linkNames(node).includes('foreign0') && linkNames(node).includes(kept.link.name));
});

test('a pod cannot speak with an address that is not routed to it', async () => {
  // The rule is the node table's (src/datapath/nftables); that the routes here make it hold is what is tried.
  const [a, b] = [await pod(), await pod()];
  await attach(kernel, a);
  await attach(kernel, b);
  await kernel.nftApply(
    '',
    `table inet weft {
      chain raw {
        type filter hook prerouting priority raw
        iifgroup 0x57e0 fib saddr . iif oif missing counter drop
      }
    }`,
  );
  const target = b.attachment.ips[0]!.split('/')[0]!;
  const source = a.attachment.ips[0]!.split('/')[0]!;
  assert.ok(pings(a.attachment.netns, target, '-I', source));
  for (const forged of ['10.77.0.1', '198.51.100.7']) {
    ip(a.attachment.netns, 'addr', 'add', `${forged}/32`, 'dev', 'eth0');
    assert.ok(!pings(a.attachment.netns, target, '-I', forged, '-W', '0.3'), forged);
  }
  const rule = inNs(node, 'nft', 'list', 'chain', 'inet', 'weft', 'raw');
  assert.match(rule, /packets 2 /);
});
