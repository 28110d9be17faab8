import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { netObjectKey } from '../../base/net-objects.ts';
import { compileFabric } from '../../fabric/plan.ts';
import { FabricNet } from '../../fabric/testing/fabric-net.ts';
import { LINK_KINDS } from './link-reconciler.ts';

/** Until it holds; the deadline is for a broken machine, not a measure. */
async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ten seconds`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe('the reconciler on the real kernel', () => {
  let net: FabricNet;
  before(async () => {
    net = await FabricNet.create({ label: 'l', backend: 'vxlan', racks: [[1, 2]], filter: false });
  });
  after(() => net?.[Symbol.asyncDispose]());

  const sh = (...argv: string[]): Promise<{ stdout: string }> => net.sh(net.machine(1).ns, ...argv);
  const asDesired = async (): Promise<boolean> => {
    const machine = net.machine(1);
    const keys = new Set((await net.kernel.dump(machine.ns, LINK_KINDS)).map(netObjectKey));
    return machine.plan!.objects.every((object) => keys.has(netObjectKey(object)));
  };

  test('what it made, a successor adopts without one operation', async () => {
    net.operations = 0;
    await net.restartAgent(1);
    await net.restartAgent(2);
    assert.equal(net.operations, 0);
  });

  /** Commands of an administrator, and what the drift says. All of them are put back. */
  const mischief: Array<[command: string, message: RegExp]> = [
    ['ip route del 10.244.2.0/24 metric 1087', /^route 10\.244\.2\.0\/24 .* was gone$/],
    ['ip -6 route del fd00:10:244:2::/64 metric 1087', /^route fd00:10:244:2::\/64 .* was gone$/],
    ['ip route del 198.18.0.2 table 87', /table 87.* was gone$/],
    [
      'ip route replace 10.244.2.0/24 via 198.18.0.2 metric 1087',
      /^route 10\.244\.2\.0\/24 .* had .*protocol/,
    ],
    ['ip rule del prio 87', /^rule 87: from 10\.244\.1\.0\/24 .* was gone$/],
    ['ip -6 rule del prio 87', /^rule 87: from fd00:10:244:1::\/64 .* was gone$/],
    ['bridge fdb del MAC dev weft-vxlan dst 198.18.0.2', /^fdb .* was gone$/],
    [
      'bridge fdb replace MAC dev weft-vxlan dst 198.18.0.9 self permanent',
      /^fdb .*198\.18\.0\.2 .*was gone$/,
    ],
    ['ip neigh del 10.244.2.0 dev weft-vxlan', /^neighbour 10\.244\.2\.0 .* was gone$/],
    [
      'ip neigh replace 10.244.2.0 dev weft-vxlan lladdr 02:00:00:00:00:09 nud permanent',
      /had mac 02:00:00:00:00:09/,
    ],
    [
      'ip neigh replace 10.244.9.9 dev weft-vxlan lladdr 02:00:00:00:00:09 nud permanent',
      /10\.244\.9\.9 .*nobody wants it/,
    ],
    ['ip addr del 10.244.1.0/32 dev weft-vxlan', /^address 10\.244\.1\.0\/32 .* was gone$/],
    ['ip addr add 192.0.2.7/32 dev weft-vxlan', /^address 192\.0\.2\.7\/32 .*nobody wants it/],
    ['ip link set weft-vxlan mtu 1300', /^link weft-vxlan .* had mtu 1300 instead of 1450$/],
    ['ip link set weft-vxlan address 02:00:00:00:00:08', /had mac 02:00:00:00:00:08/],
    ['ip link set weft-vxlan alias mine', /had alias mine/],
    ['ip link set weft-vxlan down', /had up false instead of true/],
    ['ip link del weft-vxlan', /^link weft-vxlan .* was gone$/],
    ['ip addr flush dev weft-vxlan', /^address .* was gone$/],
  ];
  for (const [command, message] of mischief) {
    test(`${command}: put back`, async () => {
      const mac = net.machine(1).plan!.objects.find((o) => o.kind === 'fdb')!.mac;
      net.drifts.length = 0;
      await sh(...command.replace('MAC', mac).split(' '));
      await until('a drift that says so', () => net.drifts.some((d) => message.test(d.message)));
      assert.ok(await asDesired(), 'it was reported, but not put back');
      await net.machine(1).reconciler.verify();
      net.operations = 0;
      await net.sync([1]);
      assert.equal(net.operations, 0);
    });
  }

  test('traffic flows after all that', async () => {
    const [pod] = net.machine(1).pods;
    for (const ip of net.machine(2).pods[0]!.ips) await net.sh(pod!.ns, 'ping', '-c1', '-W2', ip);
  });

  test('who did it is known where the kernel tells', async () => {
    net.drifts.length = 0;
    await sh('ip', 'route', 'del', '10.244.2.0/24', 'metric', '1087');
    await until('the drift', () => net.drifts.length > 0);
    assert.ok(
      net.drifts[0]!.by,
      'a route event carries the port of whoever asked (net/ipv4/fib_semantics.c)',
    );
    assert.ok(net.drifts[0]!.by.pid > 0);
  });

  test('sysctls are part of it', async () => {
    await sh('sysctl', '-qw', 'net.ipv4.ip_forward=0');
    net.drifts.length = 0;
    await net.machine(1).reconciler.verify();
    assert.deepEqual(
      net.drifts.map((d) => d.message),
      ['sysctl net/ipv4/ip_forward was 0 instead of 1'],
    );
    assert.equal((await net.kernel.sysctlRead(net.machine(1).ns, 'net/ipv4/ip_forward')).trim(), '1');
  });

  test('another VNI, another port: the device is replaced, with everything on it, in one apply', async () => {
    const one = net.machine(1);
    const self = { name: 'n1', nodeIPs: one.nodeIPs, podCIDRs: one.podCIDRs };
    const two = net.machine(2);
    const other = { name: 'n2', nodeIPs: two.nodeIPs, podCIDRs: two.podCIDRs, vtepMac: '02:00:00:00:00:22' };
    for (const [vxlanVni, vxlanPort] of [
      [77, 8472],
      [77, 4789],
    ] as const) {
      const plan = compileFabric(
        self,
        [other],
        [{ dev: 'eth0', mtu: 1500, onLink: ['198.18.0.0/24', '2001:db8:0::/64'] }],
        {
          clusterCIDRs: ['10.244.0.0/16'],
          fabric: { backend: 'vxlan', vxlanVni, vxlanPort, mtu: 0 },
          masquerade: { enabled: true, exclude: [] },
        },
      );
      net.drifts.length = 0;
      const report = await one.reconciler.apply(plan.objects, plan.sysctls);
      assert.deepEqual(report.failures, []);
      assert.ok(report.operations > 10);
      assert.equal((await one.reconciler.apply(plan.objects, plan.sysctls)).operations, 0);
      assert.deepEqual(net.drifts, []);
      const { stdout } = await sh('ip', '-d', 'link', 'show', 'weft-vxlan');
      assert.match(stdout, new RegExp(`vxlan id ${vxlanVni} .*dstport ${vxlanPort} `));
    }
    await net.sync([1]);
  });

  test('what is not ours stays, whatever it looks like; nothing of ours stays when nothing is desired', async () => {
    for (const line of [
      'ip link add vx9 type vxlan id 9 dstport 4790 local 198.18.0.1',
      'ip link set vx9 up',
      'bridge fdb add 02:00:00:00:00:77 dev vx9 dst 198.18.0.77',
      'ip route add 10.99.0.0/16 via 198.18.0.2',
      'ip -6 route add fd99::/64 via 2001:db8::2 proto 3',
      'ip rule add from 192.0.2.0/24 lookup 99 prio 99',
      'ip neigh add 198.18.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent',
    ]) {
      await sh(...line.split(' '));
    }
    const one = net.machine(1);
    const others = async (): Promise<string[]> => {
      const ours = new Set(one.plan!.objects.map(netObjectKey));
      const all = await net.kernel.dump(one.ns, LINK_KINDS);
      return all
        .filter((o) => !ours.has(netObjectKey(o)) && JSON.stringify(o).includes('weft-vxlan') === false)
        .filter((o) => o.kind !== 'neighbour' || o.state === 'permanent')
        .map(netObjectKey)
        .sort();
    };
    const before = await others();
    assert.ok(
      before.some((key) => key.includes('weft')),
      'the pods are among them',
    );
    await one.reconciler.apply([]);
    assert.deepEqual(await others(), before);
    const left = (await net.kernel.dump(one.ns, LINK_KINDS)).map(netObjectKey);
    for (const object of one.plan!.objects)
      assert.ok(!left.includes(netObjectKey(object)), netObjectKey(object));
    await net.sync([1]);
    assert.deepEqual(await others(), before);
    assert.ok(await asDesired());
  });
});

describe('the underlay', () => {
  let net: FabricNet;
  before(async () => {
    net = await FabricNet.create({ label: 'u', backend: 'host-gw', racks: [[1, 2]], filter: false });
  });
  after(() => net?.[Symbol.asyncDispose]());

  test('goes down and comes back: so do the direct routes, without anybody doing anything', async () => {
    const { ns, pods, reconciler, nodeIPs } = net.machine(1);
    const target = net.machine(2).pods[0]!.ips;
    await net.sh(ns, 'ip', 'link', 'set', 'eth0', 'down');
    await until('failures are known', () => reconciler.failures.length > 0);
    await net.sh(ns, 'ip', 'link', 'set', 'eth0', 'up');
    // IPv6 addresses go with the link; whoever configures this machine's interfaces brings them back.
    await net.sh(ns, 'ip', 'addr', 'add', `${nodeIPs[1]}/64`, 'dev', 'eth0', 'nodad');
    await until('everything is in place', () => reconciler.failures.length === 0);
    for (const ip of target) {
      await until(`${ip} answers`, () =>
        net.sh(pods[0]!.ns, 'ping', '-c1', '-W1', ip).then(
          () => true,
          () => false,
        ),
      );
    }
  });
});
