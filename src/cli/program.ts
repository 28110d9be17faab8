/** Every command and its options. Each command's code is loaded only when it is called. */
import { Command, InvalidArgumentError } from 'commander';
import { WeftError } from '../base/errors.ts';
import { versionText } from './commands/version.ts';

const int =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
const list = (value: string, before: string[] = []): string[] => [...before, value];

function requireRoot(): void {
  if (process.geteuid?.() !== 0)
    throw new WeftError('WEFT_NOT_ROOT', 'a lab is made of namespaces, links and mounts; this is not root');
}

/**
 * `exec POD -c NAME -- PROGRAM …`, as kubectl takes it: options of ours may follow the pod, up to `--` or the program;
 * what follows that is the program's own.
 */
export function afterPod(
  exec: Command,
  rest: string[],
): { argv: string[]; options: Record<string, unknown> } {
  const late = exec
    .createCommand(exec.name())
    .copyInheritedSettings(exec)
    .configureHelp({ formatHelp: () => exec.helpInformation() })
    .argument('<command...>', 'program and arguments, after --')
    .passThroughOptions();
  // Without their defaults, which would hide what stands before the pod.
  for (const { flags, description } of exec.options) late.option(flags, description);
  late.parse(rest, { from: 'user' });
  return { argv: late.args, options: late.opts() };
}

export function program(): Command {
  const weft = new Command('weft')
    .description('The whole container network, on the real Linux kernel')
    .version(versionText(), '-V, --version', 'print the version')
    .configureHelp({ sortSubcommands: false })
    .enablePositionalOptions()
    .showHelpAfterError()
    .exitOverride();

  const lab = (name: string, description: string): Command =>
    weft
      .command(name)
      .description(description)
      .option('-l, --lab <name>', 'which lab', process.env.WEFT_LAB ?? 'default')
      .hook('preAction', requireRoot);

  lab('up', 'boot a cluster on this machine and show it working')
    .option('-n, --nodes <count>', 'nodes', int(1, 64), 3)
    .option('--fabric <backend>', 'auto, vxlan or host-gw', 'auto')
    .option('--subnets <count>', 'underlay subnets that the nodes are spread over', int(1, 16), 1)
    .option('-f, --filename <manifest>', 'apply this manifest too (may be repeated)', list, [])
    .option('--no-verify', 'do not measure reachability')
    .action(async (options) => (await import('./commands/up.ts')).up(options));
  lab('down', 'remove a cluster, and look that nothing is left')
    .option('--all', 'every lab of this machine')
    .action(async (options) => (await import('./commands/down.ts')).down(options));
  lab('status', 'nodes, pods, processes and reachability of a cluster')
    .option('-o, --output <form>', 'text or json', 'text')
    .option('--matrix', 'measure reachability by real packets')
    .action(async (options) => (await import('./commands/status.ts')).status(options));
  const execCommand = lab('exec', "run a program in a pod's namespaces")
    .argument('<pod>', 'pod name')
    .argument('<command...>', 'program and arguments, after --')
    .option('-n, --namespace <name>', 'namespace of the pod', 'default')
    .option('-c, --container <name>', 'container (default: the first)')
    .passThroughOptions();
  execCommand.action(async (pod, rest, options) => {
    const late = afterPod(execCommand, rest);
    await (await import('./commands/exec.ts')).exec(pod, late.argv, { ...options, ...late.options });
  });
  lab('logs', 'what a container wrote')
    .argument('<pod>', 'pod name')
    .option('-n, --namespace <name>', 'namespace of the pod', 'default')
    .option('-c, --container <name>', 'container (default: the first)')
    .option('-f, --follow', 'go on as it grows')
    .option('-p, --previous', 'of the run before')
    .action(async (pod, options) => (await import('./commands/logs.ts')).logs(pod, options));
  lab('kubeconfig', 'print the path of the kubeconfig of a cluster').action(async (options) =>
    (await import('./commands/kubeconfig.ts')).kubeconfig(options),
  );

  weft
    .command('agent')
    .description('run the agent of this node')
    .requiredOption('--config <file>', 'configuration, YAML or JSON')
    .action(async (options) => (await import('../agent/main.ts')).run(options.config));
  weft
    .command('apiserver')
    .description('serve the Kubernetes API, with the network controllers, from an embedded store')
    .requiredOption('--data-dir <dir>', 'store, CA and keys')
    .option('--listen <address:port>', 'listen here (may be repeated)', list, [])
    .option('--listen-fd <fd>', 'listen on an inherited socket (may be repeated)', list, [])
    .option(
      '--advertise <address>',
      'name or address that the certificate is for (may be repeated)',
      list,
      [],
    )
    .option('--cluster-cidr <cidr>', 'pod CIDR of the cluster, one per family (may be repeated)', list, [])
    .option('--admin-kubeconfig <file>', 'write a kubeconfig for the administrator')
    .option('--server <url>', 'server address in that kubeconfig')
    .action(async (options) => (await import('./commands/apiserver.ts')).apiserver(options));
  weft
    .command('join-config')
    .description('write a kubeconfig with which the agent of another machine joins')
    .requiredOption('--data-dir <dir>', "the API server's")
    .requiredOption('--node <name>', 'name of the node')
    .requiredOption('--server <url>', 'address of the API server, as that machine reaches it')
    .requiredOption('--out <file>', 'where to write it')
    .action(async (options) => (await import('./commands/join-config.ts')).joinConfig(options));
  weft
    .command('lab-daemon', { hidden: true })
    .description('the process behind `weft up`')
    .argument('<lab>')
    .action(async (name) => (await import('./commands/lab-daemon.ts')).labDaemon(name));

  weft
    .command('warm', { hidden: true })
    .description('fill the compile cache')
    .action(async () => (await import('./commands/warm.ts')).warm());
  weft
    .command('test')
    .description('check types, style and imports, and run the tests')
    .argument('[files...]', 'only these test files')
    .option('--only <pattern>', 'only tests whose name matches')
    .action(async (files, options) => (await import('./commands/test.ts')).test(files, options));
  weft
    .command('bench')
    .description('measure, side by side with the peers')
    .argument('[names...]', 'cni, path, kernel, up (default: all)')
    .option('--pods <count>', 'pods of the cni and kernel benchmarks', int(10, 5000), 1000)
    .option('--rounds <count>', 'interleaved rounds (default: cni 1, path 11, up 5)', int(1, 100))
    .option('--seconds <count>', 'of each measurement of the path benchmark', int(1, 60), 1)
    .option('--markdown <file>', "replace the benchmarks' sections in this page")
    .action(async (names, options) => (await import('./commands/bench.ts')).bench(names, options));
  weft
    .command('version')
    .description('print the version')
    .action(() => void process.stdout.write(`${versionText()}\n`));
  return weft;
}
