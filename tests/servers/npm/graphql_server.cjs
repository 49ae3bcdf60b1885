// graphql-ws' own server: three subscriptions that count, and a second door for whoever tests.
//
// `node graphql_server.cjs PORT [TOKEN]`; it says "loaded", waits for a line on standard input, and
// listens.  On SIGTERM it closes every connection with 1001.
//
// /graphql speaks graphql-transport-ws.  With a TOKEN, whoever does not bring it is forbidden.
// /control takes JSON: {"do": "fail" | "complete", "name": "a"}, {"do": "ping"},
// {"do": "close", "code": 4400}, and answers with what the connections of /graphql have subscribed
// to: [{"s1": "subscription { a }"}, …].

'use strict';

const { buildSchema } = require('graphql');
const { useServer } = require('graphql-ws/use/ws');
const { WebSocketServer } = require('ws');

const NAMES = ['a', 'b', 'c'];
const INTERVAL = 20n * 1000n * 1000n; // nanoseconds

// What is counted are the ticks of a clock that all lives of this server share, so that a restart
// leaves numbers out, and none comes twice.
const tick = () => Number(process.hrtime.bigint() / INTERVAL);

// Not an async generator: that one could not be left while it waits.
class Counter {
  static all = new Set();

  constructor(name) {
    this.name = name;
    this.values = [];
    this.waiting = [];
    this.over = null;
    Counter.all.add(this);
  }

  push(number) {
    if (this.over === null) {
      this.values.push({ value: { [this.name]: number }, done: false });
      this.flush();
    }
  }

  end(error) {
    this.over = () =>
      error ? Promise.reject(error) : Promise.resolve({ value: undefined, done: true });
    Counter.all.delete(this);
    this.flush();
  }

  flush() {
    while (this.waiting.length && this.values.length) this.waiting.shift()(this.values.shift());
    while (this.waiting.length && this.over) this.waiting.shift()(this.over());
  }

  next() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.flush();
    });
  }

  async return() {
    this.end();
    return { value: undefined, done: true };
  }

  async throw(error) {
    this.end();
    throw error;
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}

const schema = buildSchema(`
  type Query { double(of: Int!): Int! broken: String! }
  type Subscription { ${NAMES.map((name) => `${name}: Int!`).join(' ')} }
`);

const roots = {
  query: {
    double: ({ of }) => 2 * of,
    broken: () => {
      throw new Error('as asked');
    },
  },
  subscription: Object.fromEntries(NAMES.map((name) => [name, () => new Counter(name)])),
};

function main(port, token) {
  const graphql = new WebSocketServer({ noServer: true });
  const control = new WebSocketServer({ noServer: true });
  const contexts = new Set();
  const running = useServer(
    {
      schema,
      roots,
      onConnect(context) {
        if (token !== undefined && context.connectionParams?.token !== token) return false;
        context.wanted = {};
        contexts.add(context);
        return true;
      },
      onSubscribe(context, id, payload) {
        context.wanted[id] = payload.query;
      },
      onComplete(context, id) {
        delete context.wanted[id];
      },
      onError(context, id) {
        delete context.wanted[id];
      },
      onClose(context) {
        contexts.delete(context);
      },
    },
    graphql,
  );
  const acts = {
    fail: ({ name }) => each(name, (counter) => counter.end(new Error('as told'))),
    complete: ({ name }) => each(name, (counter) => counter.end()),
    ping: () => contexts.forEach(({ extra }) => extra.socket.send('{"type":"ping"}')),
    close: ({ code }) => contexts.forEach(({ extra }) => extra.socket.close(code, 'as told')),
  };
  control.on('connection', (socket) => {
    socket.on('message', (data) => {
      const told = JSON.parse(String(data));
      acts[told.do]?.(told);
      socket.send(JSON.stringify([...contexts].map((one) => one.wanted)));
    });
  });

  const server = require('node:http').createServer();
  server.on('upgrade', (request, socket, head) => {
    const door = request.url === '/control' ? control : graphql;
    door.handleUpgrade(request, socket, head, (one) => door.emit('connection', one, request));
  });
  server.listen(port, '127.0.0.1', () => console.log('listening'));

  setInterval(() => {
    const number = tick();
    for (const counter of [...Counter.all]) counter.push(number);
  }, Number(INTERVAL / 1000000n));
  process.once('SIGTERM', async () => {
    server.close();
    await running.dispose();
    process.exit(0);
  });
}

function each(name, act) {
  for (const counter of [...Counter.all]) if (counter.name === name) act(counter);
}

console.log('loaded');
process.stdin.once('data', () => main(Number(process.argv[2]), process.argv[3]));
