/** Namespaces of a test file, with the synchronous kernel at hand. */
import assert from 'node:assert/strict';
import type { Link, NetObject, NetObjectKind, NsPath, Route } from '../../base/net-objects.ts';
import { Namespaces } from '../namespace.ts';
import { runProgram } from '../program.ts';
import { type DumpFilter, dumpObjects } from '../rtnl.ts';
import type { Op, RunResult, Step } from '../types.ts';
import { ScratchNamespaces } from './scratch.ts';

const noNetfilter = {
  applyElements: (): void => assert.fail('no nft here'),
  purge: (): void => assert.fail('no conntrack here'),
};

export class Workbench {
  readonly scratch: ScratchNamespaces;
  readonly namespaces = new Namespaces();

  constructor(label: string) {
    this.scratch = new ScratchNamespaces(label);
  }

  close(): void {
    this.namespaces[Symbol.dispose]();
    this.scratch.remove();
  }

  run(...steps: Step[]): RunResult {
    return runProgram(steps, this.namespaces, noNetfilter);
  }

  /** Run ops that must all succeed. */
  does(ns: NsPath, ...ops: Op[]): void {
    assert.deepEqual(this.run({ ns, ops }), { failures: [], stopped: false });
  }

  dump(ns: NsPath, kind: NetObjectKind, filter?: DumpFilter): NetObject[] {
    return this.namespaces.use(ns, (namespace) => dumpObjects(namespace.route, [kind], filter));
  }

  link(ns: NsPath, name: string): Link {
    const found = this.dump(ns, 'link').find((l) => l.kind === 'link' && l.name === name);
    assert.ok(found?.kind === 'link', `no link ${name}`);
    return found;
  }

  links(ns: NsPath): string[] {
    return this.dump(ns, 'link')
      .map((l) => (l.kind === 'link' ? l.name : ''))
      .sort();
  }

  routes(ns: NsPath, filter?: DumpFilter): Route[] {
    return this.dump(ns, 'route', filter).filter((r) => r.kind === 'route');
  }

  /** A veth pair a–b, up, without automatic addresses, a with 10.0.0.1/24 and fd00::1/64. */
  addPair(ns: NsPath): void {
    this.does(
      ns,
      {
        op: 'link.create',
        link: {
          kind: 'link',
          name: 'a',
          type: 'veth',
          addrGenMode: 'none',
          peer: { name: 'b', addrGenMode: 'none' },
          up: true,
        },
      },
      { op: 'link.set', link: { name: 'b', up: true } },
      { op: 'address.replace', address: { kind: 'address', dev: 'a', address: '10.0.0.1/24' } },
      { op: 'address.replace', address: { kind: 'address', dev: 'a', address: 'fd00::1/64', noDad: true } },
    );
  }
}
