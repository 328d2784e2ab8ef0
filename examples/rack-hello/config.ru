# frozen_string_literal: true

require "erb"
require "json"
require "logger"
require "securerandom"

LOG = Logger.new($stdout)

# How long the rest took, as middleware does it.
class Timing
  def initialize(app)
    @app = app
  end

  def call(env)
    began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    status, headers, body = @app.call(env)
    took = (Process.clock_gettime(Process::CLOCK_MONOTONIC) - began) * 1000
    [status, headers.merge("server-timing" => format("app;dur=%.1f", took)), body]
  end
end

PAGE = ERB.new("<h1>Hello <%= ERB::Util.h(name) %></h1>\n")

use Timing

map "/api" do
  run do |env|
    body = env["rack.input"].read
    sent = body.empty? ? nil : JSON.parse(body)
    answer = { path: env["PATH_INFO"], method: env["REQUEST_METHOD"], sent: }
    [200, { "content-type" => "application/json" }, [JSON.generate(answer)]]
  end
end

run do |env|
  case env["PATH_INFO"]
  when "/"
    name = ENV.fetch("GREETED", "Rack")
    [200, { "content-type" => "text/html; charset=utf-8" }, [PAGE.result_with_hash(name:)]]
  when "/random"
    [200, { "content-type" => "application/json" }, [JSON.generate(id: SecureRandom.uuid, n: rand)]]
  when "/stream"
    [200, { "content-type" => "text/plain" }, proc { |out| 3.times { |at| out << "line #{at}\n" } }]
  when "/later"
    env["rack.response_finished"] << proc { LOG.info("done after the response") }
    [200, { "content-type" => "text/plain" }, ["now\n"]]
  when "/error"
    raise ArgumentError, "on purpose"
  else
    [404, { "content-type" => "text/plain" }, ["not found\n"]]
  end
end
