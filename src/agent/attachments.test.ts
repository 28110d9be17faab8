/**
 * Attachments against a model, with the agent killed between any two steps, and the machine rebooted: nothing is given
 * twice, nothing is given before it has rested, nothing is lost, nothing is left.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { hostIfnameOf } from '../attach/names.ts';
import { ManualClock } from '../base/clock.ts';
import { isWeftError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import type { Route } from '../base/net-objects.ts';
import { encodeRequest } from '../cni/frame.ts';
import { Spool } from '../cni/spool.ts';
import { Attachments } from './attachments.ts';
import { Disk, Killed, Life, mortalKernel, mortalStore, World } from './testing/mortal-world.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'weft-model-'));
after(() => rmSync(folder, { recursive: true }));
let machines = 0;

const COOLDOWN = 30;
const POOL = '10.5.0.0/29'; // six addresses, for five containers

type Command =
  | { kind: 'add' | 'del' | 'end'; pod: number; steps: number }
  | { kind: 'gc'; keep: number[]; steps: number }
  | { kind: 'kill' | 'reboot' | 'stop' }
  | { kind: 'wait'; seconds: number };

/** What a runtime knows of a container. */
interface Known {
  /** The answer to ADD, while it holds. */
  ips?: string[];
  /** An ADD or DEL was not answered: it may or may not have been done. */
  unsure?: boolean;
}

class Machine {
  readonly world = new World();
  readonly disk = new Disk();
  readonly clock = new ManualClock(1_000_000_000);
  readonly spool = path.join(folder, String(machines++));
  readonly known = new Map<string, Known>();
  /** When an address was last known to be held by somebody who is gone. */
  readonly released = new Map<string, number>();
  life = new Life();
  agent: Attachments | undefined;

  constructor() {
    mkdirSync(this.spool);
  }

  netns = (id: string): string => `/run/netns/${id}`;

  async start(): Promise<Attachments> {
    if (this.agent) return this.agent;
    this.life = new Life();
    const agent = new Attachments({
      kernel: mortalKernel(this.world, this.life),
      store: mortalStore(this.disk, this.life),
      spool: new Spool(this.spool),
      clock: this.clock,
      logger: silentLogger,
      cooldownSeconds: COOLDOWN,
    });
    await agent.start();
    for (const { netns } of agent.table.values())
      assert.ok(this.world.sandboxes.has(netns), 'swept at start');
    agent.configure({ podCIDRs: [POOL], clusterCIDRs: ['10.5.0.0/16'], mtu: 1450 });
    this.agent = agent;
    return agent;
  }

  async kill(): Promise<void> {
    this.life.kill();
    await this.agent?.close();
    this.agent = undefined;
  }

  /** A request with a limited life; false when the agent died of it. */
  async attempt(steps: number, request: (agent: Attachments) => Promise<void>): Promise<boolean> {
    const agent = await this.start();
    this.life.limit(steps);
    try {
      await request(agent);
    } catch (error) {
      if (!(error instanceof Killed) && !this.life.dead) throw error;
    }
    this.life.limit(Number.POSITIVE_INFINITY);
    if (!this.life.dead) return true;
    await this.kill();
    return false;
  }

  forget(id: string): void {
    for (const ip of this.known.get(id)?.ips ?? []) this.released.set(ip, this.clock.now());
    this.known.delete(id);
  }

  async run(command: Command): Promise<void> {
    switch (command.kind) {
      case 'wait':
        return await this.clock.advance(command.seconds * 1000);
      case 'kill':
        return await this.kill();
      case 'stop':
        await this.agent?.close();
        return await this.kill();
      case 'reboot':
        await this.kill();
        this.world.reboot();
        for (const id of [...this.known.keys()]) this.forget(id);
        return;
      case 'add':
        return await this.add(`c${command.pod}`, command.steps);
      case 'del':
        return await this.del(`c${command.pod}`, command.steps);
      case 'end':
        this.world.removeSandbox(this.netns(`c${command.pod}`));
        return;
      case 'gc': {
        const keep = command.keep.map((pod) => `c${pod}`);
        const valid = keep.map((containerId) => ({ containerId, ifname: 'eth0' }));
        const done = await this.attempt(command.steps, (agent) => agent.gc({ network: 'weft', valid }));
        for (const [id, known] of [...this.known]) {
          if (keep.includes(id)) continue;
          if (done) this.forget(id);
          else known.unsure = true;
        }
      }
    }
  }

  async add(id: string, steps: number): Promise<void> {
    if (!this.world.sandboxes.has(this.netns(id))) this.world.createSandbox(this.netns(id));
    const before = this.known.get(id);
    let ips: string[] | undefined;
    let exhausted = false;
    const config = { version: '1.1.0', name: 'weft', dns: {} } as const;
    const done = await this.attempt(steps, async (agent) => {
      try {
        const request = { containerId: id, ifname: 'eth0', netns: this.netns(id), ips: [], config };
        ips = (await agent.add(request)).ips.map((entry) => entry.address.split('/')[0]!);
      } catch (error) {
        if (!isWeftError(error, 'WEFT_IPAM_EXHAUSTED')) throw error;
        exhausted = true;
      }
    });
    if (exhausted) return;
    if (!done || !ips) {
      this.known.set(id, { ...before, unsure: true });
      return;
    }
    // The same sandbox keeps its addresses; what is new has rested.
    for (const ip of ips) {
      if (before?.ips?.includes(ip) || before?.unsure) continue;
      const since = this.clock.now() - (this.released.get(ip) ?? Number.NEGATIVE_INFINITY);
      assert.ok(since >= COOLDOWN * 1000, `${ip} was given again after ${since} ms`);
    }
    this.known.set(id, { ips });
  }

  /** As a runtime does it: by the plugin, which keeps the request when there is nobody to take it. */
  async del(id: string, steps: number): Promise<void> {
    const ref = { containerId: id, ifname: 'eth0' };
    const keep = (): void => {
      const env = { CNI_COMMAND: 'DEL', CNI_CONTAINERID: id, CNI_IFNAME: 'eth0' };
      const frame = encodeRequest({ env, stdin: JSON.stringify({ cniVersion: '1.0.0', name: 'weft' }) });
      writeFileSync(path.join(this.spool, `${this.clock.now()}-${readdirSync(this.spool).length}`), frame);
    };
    if (!this.agent) keep();
    else if (!(await this.attempt(steps, (agent) => agent.del({ ...ref, network: 'weft', netns: '' }))))
      keep();
    // Done or kept: the runtime takes it for done.
    this.forget(id);
  }

  /** What must hold whenever an agent is there. */
  async check(): Promise<void> {
    const agent = await this.start();
    const held = new Map<string, string>();
    for (const { id, ips } of agent.table.values()) {
      for (const ip of ips) {
        assert.equal(held.get(ip), undefined, `${ip} is given twice`);
        held.set(ip, id);
      }
    }
    assert.deepEqual(
      [...this.disk.attachments.keys()].sort(),
      [...agent.table.keys()].sort(),
      'disk and memory',
    );
    assert.equal(agent.ipam!.usage()[0]!.inUse, held.size, 'the pool knows exactly what is held');
    const routes = this.world.host().filter((object): object is Route => object.kind === 'route');
    for (const route of routes) {
      assert.equal(route.dev, hostIfnameOf(held.get(route.dst)!), `the route ${route.dst} has no owner`);
    }
    for (const [id, { ips, unsure }] of this.known) {
      if (unsure || !ips || !this.world.sandboxes.has(this.netns(id))) continue;
      for (const ip of ips) {
        assert.equal(held.get(`${ip}/32`), `${id}/eth0`, `${id} has lost ${ip}`);
        assert.ok(
          routes.some((route) => route.dst === `${ip}/32`),
          `${id} is not reachable`,
        );
      }
    }
  }
}

const steps = fc.oneof(
  { weight: 2, arbitrary: fc.nat(30) },
  { weight: 3, arbitrary: fc.constant(1_000_000) },
);
const pod = fc.nat(4);
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('add' as const), pod, steps }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('del' as const), pod, steps }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('end' as const), pod, steps }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('gc' as const), keep: fc.uniqueArray(pod), steps }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('kill' as const, 'stop' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reboot' as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait' as const), seconds: fc.nat(40) }) },
);

test('whatever is killed when, addresses are unique, rested, and never lost', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 40 }), async (commands) => {
      const machine = new Machine();
      for (const next of commands) {
        await machine.run(next);
        if (next.kind !== 'kill' && next.kind !== 'stop' && next.kind !== 'reboot') await machine.check();
      }
      await machine.check();
      // When every container is gone, and its address has rested, the node is as new.
      for (let n = 0; n < 5; n++) await machine.del(`c${n}`, 1_000_000);
      await machine.clock.advance(COOLDOWN * 1000);
      const agent = await machine.start();
      assert.deepEqual([agent.table.size, machine.disk.attachments.size], [0, 0]);
      const { inUse, coolingDown } = agent.ipam!.usage()[0]!;
      assert.deepEqual([inUse, coolingDown], [0, 0]);
      await agent.close();
      assert.deepEqual(machine.world.host(), [], 'nothing is left on the node');
      for (let n = 0; n < 5; n++) await machine.add(`c${n}`, 1_000_000);
      await machine.kill();
    }),
    { numRuns: 150 },
  );
});

test('an ADD killed at each of its steps, then asked again, then deleted', async () => {
  for (let at = 0; ; at++) {
    const machine = new Machine();
    await machine.start();
    await machine.add('c0', at);
    const died = machine.agent === undefined;
    await machine.check();
    await machine.add('c0', 1_000_000);
    await machine.check();
    await machine.del('c0', 1_000_000);
    await machine.agent!.close();
    assert.deepEqual(machine.world.host(), [], `killed at step ${at}`);
    assert.equal(machine.disk.attachments.size, 0);
    await machine.kill();
    if (!died) {
      assert.ok(at > 12, 'it had steps to be killed at');
      return;
    }
  }
});
