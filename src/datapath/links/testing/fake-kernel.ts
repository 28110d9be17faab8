/**
 * A stateful stand-in for one namespace: the rules of Linux that the reconciler has to live with, and nothing else. What
 * hangs on a device goes with it; routes need their device up and their source present; VNIs are unique.
 */
import { familyOf } from '../../../base/ip.ts';
import { type Link, type NetObject, netObjectKey } from '../../../base/net-objects.ts';
import type { Kernel, KernelEvent, Op, OpFailure, RunResult, Step, Watch } from '../../../kernel/types.ts';

type Errno = 'EEXIST' | 'ENOENT' | 'ENODEV' | 'EINVAL' | 'ENETDOWN';
class Refusal extends Error {
  readonly errno: Errno;
  constructor(errno: Errno) {
    super(errno);
    this.errno = errno;
  }
}

export class FakeKernel implements Pick<Kernel, 'run' | 'dump' | 'watch' | 'sysctlRead'> {
  objects: NetObject[] = [];
  readonly sysctls = new Map<string, string>();
  /** All operations that were ever asked for, and how often everything was read. */
  readonly ops: Op[] = [];
  dumps = 0;
  #listeners = new Set<(events: KernelEvent[]) => void>();

  get(key: string): NetObject | undefined {
    return this.objects.find((object) => netObjectKey(object) === key);
  }

  /** Put it there as if it had always been. */
  place(object: NetObject): void {
    this.objects.push(structuredClone(object));
    if (object.kind !== 'link') return;
    this.sysctls.set(`net/ipv4/conf/${object.name}/rp_filter`, '1');
    this.sysctls.set(`net/ipv6/conf/${object.name}/accept_ra`, '1');
  }

  run(steps: Step[]): Promise<RunResult> {
    const failures: OpFailure[] = [];
    steps.forEach((step, s) => {
      step.ops.forEach((op, o) => {
        this.ops.push(op);
        try {
          this.act(op);
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          const gone = op.op.endsWith('.delete') && (error.errno === 'ENOENT' || error.errno === 'ENODEV');
          failures.push({
            step: s,
            op: o,
            errno: 1,
            errnoName: error.errno,
            message: `${op.op}: ${error.errno}`,
            gone,
          });
        }
      });
    });
    return Promise.resolve({ failures, stopped: false });
  }

  dump(): Promise<NetObject[]> {
    this.dumps++;
    return Promise.resolve(structuredClone(this.objects));
  }

  sysctlRead(_ns: string, path: string): Promise<string> {
    const value = this.sysctls.get(path);
    return value === undefined ? Promise.reject(new Error('ENOENT')) : Promise.resolve(`${value}\n`);
  }

  watch(_ns: string, _what: unknown, onEvents: (events: KernelEvent[]) => void): Promise<Watch> {
    this.#listeners.add(onEvents);
    return Promise.resolve({
      close: () => {
        this.#listeners.delete(onEvents);
        return Promise.resolve();
      },
    });
  }

  /** Somebody else does something: it happens, and the events are sent. */
  foreign(op: Op, by?: { pid: number; name?: string }): void {
    const before = new Map(structuredClone(this.objects).map((object) => [netObjectKey(object), object]));
    this.act(op);
    const events: KernelEvent[] = [];
    const after = new Map(this.objects.map((object) => [netObjectKey(object), object]));
    for (const [key, object] of before) {
      // Linux does not report IPv4 routes that go with their device.
      if (
        after.has(key) ||
        (object.kind === 'route' && op.op.startsWith('link.') && familyOf(object.dst) === 4)
      )
        continue;
      events.push({ type: 'delete', object, own: false, ...(by && { by }) });
    }
    for (const [key, object] of after) {
      if (JSON.stringify(before.get(key)) !== JSON.stringify(object)) {
        events.push({ type: 'new', object, own: false, ...(by && { by }) });
      }
    }
    this.send(events);
  }

  send(events: KernelEvent[]): void {
    for (const listener of this.#listeners) listener(structuredClone(events));
  }

  act(op: Op): void {
    switch (op.op) {
      case 'link.create': {
        const { link } = op;
        if (this.get(`link ${link.name}`)) throw new Refusal('EEXIST');
        const rival = (o: NetObject): boolean =>
          o.kind === 'link' &&
          o.vxlan !== undefined &&
          o.vxlan.id === link.vxlan?.id &&
          o.vxlan.port === link.vxlan.port &&
          o.vxlan.local?.includes(':') === link.vxlan.local?.includes(':');
        if (link.vxlan && this.objects.some(rival)) throw new Refusal('EEXIST');
        this.objects.push({ up: false, mtu: 1500, addrGenMode: 'eui64', ...link });
        for (const family of [4, 6]) {
          this.sysctls.set(
            `net/ipv${family}/conf/${link.name}/${family === 4 ? 'rp_filter' : 'accept_ra'}`,
            '1',
          );
        }
        return;
      }
      case 'link.set': {
        const link = this.#link((op.link as { name: string }).name);
        Object.assign(link, op.link);
        if (op.link.up === false) {
          this.#drop((o) => (o.kind === 'route' || o.kind === 'neighbour') && o.dev === link.name);
          this.#drop((o) => o.kind === 'address' && o.dev === link.name && familyOf(o.address) === 6);
        }
        return;
      }
      case 'link.delete':
        this.#link(op.name);
        this.#drop((o) => (o.kind === 'link' ? o.name === op.name : o.kind !== 'rule' && o.dev === op.name));
        for (const path of [...this.sysctls.keys()]) {
          if (path.includes(`/conf/${op.name}/`)) this.sysctls.delete(path);
        }
        return;
      case 'route.replace': {
        const { route } = op;
        if (route.dev !== undefined && !this.#link(route.dev).up) throw new Refusal('ENETDOWN');
        const hasSource = this.objects.some(
          (o) => o.kind === 'address' && o.address.slice(0, o.address.indexOf('/')) === route.src,
        );
        if (route.src !== undefined && !hasSource) throw new Refusal('EINVAL');
        this.#put({ protocol: 87, table: 254, ...route });
        return;
      }
      case 'rule.add':
        if (this.get(netObjectKey(op.rule))) throw new Refusal('EEXIST');
        this.#put(op.rule);
        return;
      case 'address.replace':
        this.#link(op.address.dev);
        this.#put(op.address);
        return;
      case 'neighbour.replace':
        this.#link(op.neighbour.dev);
        this.#put({ state: 'permanent', ...op.neighbour });
        return;
      case 'fdb.replace':
        this.#link(op.fdb.dev);
        // One VTEP per MAC: replacing moves it (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_replace).
        this.#drop((o) => o.kind === 'fdb' && o.dev === op.fdb.dev && o.mac === op.fdb.mac);
        this.#put({ state: 'permanent', ...op.fdb });
        return;
      case 'address.delete':
        this.#remove(op.address);
        this.#drop((o) => o.kind === 'route' && o.src === op.address.address.replace(/\/.*/, ''));
        return;
      case 'route.delete':
        this.#remove(op.route);
        return;
      case 'rule.delete':
        this.#remove(op.rule);
        return;
      case 'neighbour.delete':
        this.#remove(op.neighbour);
        return;
      case 'fdb.delete':
        this.#remove(op.fdb);
        return;
      case 'sysctl.write':
        if (!this.sysctls.has(op.path)) throw new Refusal('ENOENT');
        this.sysctls.set(op.path, String(op.value));
        return;
      default:
        throw new Error(`the fake knows no ${op.op}`);
    }
  }

  #link(name: string): Link {
    const link = this.get(`link ${name}`);
    if (link?.kind !== 'link') throw new Refusal('ENODEV');
    return link;
  }

  #put(object: NetObject): void {
    const key = netObjectKey(object);
    this.#drop((o) => netObjectKey(o) === key);
    this.objects.push(structuredClone(object));
  }

  #remove(object: NetObject): void {
    const key = netObjectKey(object);
    if (!this.get(key)) throw new Refusal('ENOENT');
    this.#drop((o) => netObjectKey(o) === key);
  }

  #drop(which: (object: NetObject) => boolean): void {
    this.objects = this.objects.filter((object) => !which(object));
  }
}
