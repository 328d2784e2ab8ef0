# Attacks its node from inside, one way for each path: see tests/hostile/test_every_language.py.

require "json"
require "securerandom"
require "socket"
require "uri"

KEPT = []
HEADERS = {
  "split" => -> { {"x" => "a\r\nSet-Cookie: evil=1"} },
  "name" => -> { {"x\r\nSet-Cookie" => "evil=1"} },
  "nul" => -> { {"x" => "a\0b"} },
  "lengths" => -> { {"content-length" => ["1", "2"]} },
  "negative" => -> { {"content-length" => "-1"} },
  "long" => -> { {"content-length" => "9" * 30} },
  "many" => -> { (0...300).to_h { |n| ["x-#{n}", "y"] } },
  "large" => -> { {"x" => "y" * 70_000} }
}
FILES = ["/proc/self/environ", "/etc/passwd", "/app/../../../token", "/tmp/../../../state.db",
  "/dev/mem", "../../token", "/tmp/private/diary"]

def json(value) = [200, {"content-type" => "application/json"}, [JSON.dump(value)]]

def plain(text, headers = {}) = [200, {"content-type" => "text/plain", **headers}, [text]]

def recurse(level) = recurse(level + 1) + 1

def clock
  seen = []
  ends = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 0.2
  while Process.clock_gettime(Process::CLOCK_MONOTONIC) < ends
    seen |= [Process::CLOCK_MONOTONIC, Process::CLOCK_REALTIME].map do |one|
      Process.clock_gettime(one, :nanosecond) % 1_000_000
    end
  end
  seen
end

def attempt
  yield
rescue StandardError, NotImplementedError, LoadError => error
  error.class.name
end

def fresh
  json("random" => [rand, Random.rand, Random.new.rand, [*1..50].shuffle, SecureRandom.hex],
    "now_ms" => Time.now.to_f * 1000, "setting" => ENV.fetch("SETTING", ""))
end

def connect(port)
  json([["127.0.0.1", port.to_i], ["169.254.169.254", 80]].map do |to|
    attempt { TCPSocket.new(*to) && "connected" }
  end)
end

def attack(name, rest, env)
  case name
  when nil, "" then plain("fine")
  when "loop" then loop {}
  when "never" then sleep(3600)
  when "memory" then loop { KEPT << ("x" * (1 << 20)) }
  when "recurse" then plain(recurse(0).to_s)
  when "flood" then loop { warn("flood #{"x" * 1000}") }
  when "vanish" then raise "gone"
  when "exit" then exit!(0)
  when "log"
    warn(URI.decode_uri_component(rest))
    json(1)
  when "headers" then plain("x", HEADERS.fetch(rest).call)
  when "longer" then plain("x" * 1000, "content-length" => "5")
  when "shorter" then plain("xxxxx", "content-length" => "1000")
  when "endless" then [200, {}, Enumerator.new { |to| loop { to << "x" * 50_000 } }]
  when "connection"
    plain("5\r\nhello", "transfer-encoding" => "chunked", "connection" => "x-mine", "x-mine" => "1",
      "x-request-id" => "forged")
  when "later"
    env["rack.response_finished"] << -> (*) { loop {} }
    plain("now")
  when "env" then json(ENV.to_h)
  when "connect" then connect(rest)
  when "files" then json(FILES.map { |path| attempt { File.open(path) && "opened" } })
  when "processes"
    json([attempt { `id` }, attempt { fork && "forked" }, attempt { Process.kill(9, 1) && "killed" },
      attempt { Thread.new { 1 }.value && "thread" }])
  when "clock" then json(clock)
  when "fresh" then fresh
  end
end

run(lambda do |env|
  name, rest = env["PATH_INFO"].delete_prefix("/").split("/", 2)
  attack(name, rest, env)
end)
