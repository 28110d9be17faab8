/** Other firewalls: those of iptables by iptables itself, the others as their programs write them. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openKernel } from '../../kernel/kernel.ts';
import { ScratchNamespaces } from '../../kernel/testing/scratch.ts';
import { Wire } from '../../kernel/testing/wire.ts';
import type { Kernel } from '../../kernel/types.ts';
import { composeWithForeign, withdrawFromForeign } from './compose-with-foreign.ts';
import { addPodNeighbours, inside, makeSmallNet, nft, POD_B, WORLD } from './testing/small-net.ts';

const scratch = new ScratchNamespaces('compose');
let kernel: Kernel;
before(async () => {
  kernel = await openKernel();
});
after(async () => {
  await kernel[Symbol.asyncDispose]();
  scratch.remove();
});

const iptables = (ns: string, ...rules: string[]): void => {
  for (const rule of rules) inside(ns, 'iptables', '-w', ...rule.split(' '));
};
const saved = (ns: string, program = 'iptables'): string[] =>
  inside(ns, `${program}-save`, '-t', 'filter')
    .split('\n')
    .filter((line) => line.startsWith('-A'));
const FROM = '-m comment --comment "weft: from pods and the fabric" -j ACCEPT';
const TO = '-m comment --comment "weft: to pods and the fabric" -j ACCEPT';
const docker = ['-P FORWARD DROP', '-N DOCKER-USER', '-A DOCKER-USER -j RETURN', '-A FORWARD -j DOCKER-USER'];

test('nothing foreign, or one that lets everything through: nothing to do', async () => {
  const ns = scratch.create();
  assert.deepEqual(await composeWithForeign(kernel, ns), { added: [], messages: [] });
  iptables(ns, '-A FORWARD -s 1.2.3.4 -j DROP');
  nft(ns, 'add table inet t', 'add chain inet t f { type filter hook forward priority 0 ; }');
  const old = inside(ns, 'nft', 'list', 'ruleset');
  assert.deepEqual(await composeWithForeign(kernel, ns), { added: [], messages: [] });
  assert.equal(inside(ns, 'nft', 'list', 'ruleset'), old);
});

test('Docker: two rules at the end of what the user wrote, once, readable by iptables; withdrawn without a trace', async () => {
  const ns = scratch.create();
  iptables(ns, ...docker, '-I DOCKER-USER -s 1.2.3.4 -j DROP');
  const old = saved(ns);
  const { added, messages } = await composeWithForeign(kernel, ns);
  assert.deepEqual(added, [
    'ip filter DOCKER-USER: iifname "weft*" accept',
    'ip filter DOCKER-USER: oifname "weft*" accept',
  ]);
  assert.deepEqual(messages, []);
  const now = [
    '-A FORWARD -j DOCKER-USER',
    '-A DOCKER-USER -s 1.2.3.4/32 -j DROP',
    `-A DOCKER-USER -i weft+ ${FROM}`,
    `-A DOCKER-USER -o weft+ ${TO}`,
    '-A DOCKER-USER -j RETURN',
  ];
  assert.deepEqual(saved(ns), now);
  assert.deepEqual(await composeWithForeign(kernel, ns), { added: [], messages: [] });
  assert.deepEqual(saved(ns), now);
  iptables(ns, '-D DOCKER-USER 2');
  assert.deepEqual((await composeWithForeign(kernel, ns)).added, [
    'ip filter DOCKER-USER: iifname "weft*" accept',
  ]);
  assert.equal(await withdrawFromForeign(kernel, ns), 2);
  assert.deepEqual(saved(ns), old);
});

test('Docker’s drop stops pods before, and not after; what the user drops stays dropped', async () => {
  const net = makeSmallNet(scratch);
  using a = new Wire(net.a, 'eth0');
  using b = new Wire(net.b, 'eth0');
  addPodNeighbours(net, { a: a.mac, b: b.mac });
  iptables(net.node, ...docker);
  const reaches = (ns: string, ip: string): boolean => {
    try {
      inside(ns, 'ping', '-c1', '-W0.3', ip);
      return true;
    } catch {
      return false;
    }
  };
  assert.equal(reaches(net.a, POD_B[4]), false);
  await composeWithForeign(kernel, net.node);
  assert.equal(reaches(net.a, POD_B[4]), true);
  assert.equal(reaches(net.other, POD_B[4]), true);
  iptables(net.node, `-I DOCKER-USER -d ${POD_B[4]} -j DROP`);
  assert.equal(reaches(net.a, POD_B[4]), false);
  assert.equal(reaches(net.a, WORLD[4]), true);
});

test('ufw: its user’s chains, for IPv4 and IPv6', async () => {
  const ns = scratch.create();
  for (const [program, chain] of [
    ['iptables', 'ufw-user-forward'],
    ['ip6tables', 'ufw6-user-forward'],
  ] as const) {
    for (const rule of [
      '-P FORWARD DROP',
      `-N ${chain}`,
      `-A FORWARD -j ${chain}`,
      `-A ${chain} -s ${program === 'iptables' ? '1.2.3.4' : '2001:db8::7'} -j ACCEPT`,
    ]) {
      inside(ns, program, '-w', ...rule.split(' '));
    }
  }
  const { added, messages } = await composeWithForeign(kernel, ns);
  assert.equal(added.length, 4);
  assert.deepEqual(messages, []);
  assert.deepEqual(saved(ns).slice(-2), [
    `-A ufw-user-forward -i weft+ ${FROM}`,
    `-A ufw-user-forward -o weft+ ${TO}`,
  ]);
  assert.deepEqual(saved(ns, 'ip6tables').slice(-2), [
    `-A ufw6-user-forward -i weft+ ${FROM}`,
    `-A ufw6-user-forward -o weft+ ${TO}`,
  ]);
  assert.equal(await withdrawFromForeign(kernel, ns), 4);
});

test('a FORWARD chain without a chain for users: a message with the commands, which are true, and no change', async () => {
  const ns = scratch.create();
  iptables(ns, '-P FORWARD DROP');
  const { added, messages } = await composeWithForeign(kernel, ns);
  assert.deepEqual(added, []);
  assert.equal(messages.length, 1);
  assert.deepEqual(saved(ns), []);
  const commands = messages[0]!.slice(messages[0]!.indexOf('allow them there: ') + 18).split('; ');
  assert.deepEqual(commands, [
    'iptables -A FORWARD -i weft+ -j ACCEPT',
    'iptables -A FORWARD -o weft+ -j ACCEPT',
  ]);
  for (const command of commands) inside(ns, 'sh', '-c', command);
  assert.deepEqual(await composeWithForeign(kernel, ns), { added: [], messages: [] });
});

test('a chain of plain nftables: likewise; tables of ours are none of it', async () => {
  const ns = scratch.create();
  nft(
    ns,
    'add table inet mine',
    'add chain inet mine f { type filter hook forward priority -10 ; policy drop ; }',
  );
  nft(
    ns,
    'add table inet weft',
    'add chain inet weft f { type filter hook forward priority 0 ; policy drop ; }',
  );
  const { messages } = await composeWithForeign(kernel, ns);
  assert.equal(messages.length, 1);
  assert.match(messages[0]!, /^chain inet mine f drops what it does not know/);
  const commands = messages[0]!.slice(messages[0]!.indexOf('allow them there: ') + 18);
  inside(ns, 'sh', '-c', commands);
  assert.deepEqual(await composeWithForeign(kernel, ns), { added: [], messages: [] });
});

test('firewalld: its own command, with the pod CIDRs; silent once it knows them', async () => {
  const ns = scratch.create();
  nft(
    ns,
    'add table inet firewalld',
    'add chain inet firewalld filter_FORWARD { type filter hook forward priority 10 ; }',
    'add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited',
  );
  const pods = ['10.244.0.0/24', 'fd00::/64'];
  const old = inside(ns, 'nft', 'list', 'ruleset');
  assert.deepEqual((await composeWithForeign(kernel, ns, pods)).messages, [
    "firewalld rejects pods' packets; trust them: firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/24 --add-source=fd00::/64 && firewall-cmd --reload",
  ]);
  assert.equal(inside(ns, 'nft', 'list', 'ruleset'), old);
  nft(
    ns,
    'insert rule inet firewalld filter_FORWARD ip saddr 10.244.0.0/24 accept',
    'insert rule inet firewalld filter_FORWARD ip6 saddr fd00::/64 accept',
  );
  assert.deepEqual(await composeWithForeign(kernel, ns, pods), { added: [], messages: [] });
});
